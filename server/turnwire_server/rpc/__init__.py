"""The contract over gRPC: the only room that knows grpc."""
