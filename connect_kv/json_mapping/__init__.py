"""Protobuf messages as the JSON of etcd's gateway, both ways; from the descriptors, compiled once a type.

It is what Go's `protojson` reads and writes with the gateway's settings: field names of the .proto, defaults
left out, unknown fields and unknown names of enumerations dropped. `google.protobuf.json_format` differs from
it in a dozen places that clients meet.

`decoding` turns text into an encoded message, `encoding` a message into text. What cannot be read is read a
second time by `blame`, which takes its time and says where and why in Go's words.
"""
