"""Virtual machines with Debian's kernels and systemd, by qemu without KVM: where cgroup v2 rules alone.

A machine boots from an initramfs that is made here, sees the host's files read-only below an overlay in its
memory, and runs what a test sends to it. Nothing is installed in it: the checkout, its `.venv` and the tests'
tools are those of the host. Kernels are unpacked into a cache outside the checkout.
"""
