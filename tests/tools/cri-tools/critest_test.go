// Keeps what critest's test binary needs in go.sum: `go test -c` looks for test imports too.
package critest

import (
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
