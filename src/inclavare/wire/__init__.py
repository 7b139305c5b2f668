"""Encodings of messages, without I/O: protobuf by tables, ttrpc's frames."""
