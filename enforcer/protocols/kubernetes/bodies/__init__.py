"""Bodies of requests: read whole, as one value, and rendered anew from it.  Pure.

    accepting     which forms of an answer a crew may ask for
    reading       by content type: what it says, and what of it the server gets
    json_text     JSON without a second reading
    yaml_text     YAML, as the API server reads it
    envelope      Kubernetes' protobuf: what stands around a message
    schema        the messages that Kubernetes knows (kubernetes.binpb, see NOTICE.txt)
    messages      a message as the value that its JSON form would be
"""
from enforcer.protocols.kubernetes.bodies.accepting import accept
from enforcer.protocols.kubernetes.bodies.reading import Body, read_body

__all__ = ["Body", "accept", "read_body"]
