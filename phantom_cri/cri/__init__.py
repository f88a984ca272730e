"""The CRI services: gRPC servicers, and conversion between protobuf and model."""
