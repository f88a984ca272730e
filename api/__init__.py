"""Wire APIs: .proto text and the Python made from it by `api/generate`."""
