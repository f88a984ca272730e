"""The CRI wire: gRPC servicers, and conversion between protobuf and model."""
