"""What an answer may hold that not everybody sees, and how it is hidden.  Pure.

    labels        which labels an answer may carry
    rules         what is masked at which places of an object
    detecting     what detectors find in values
    places        a path through an object
    managed       managedFields, which tell items of lists apart by their values
    objects       whatever an API server answers: objects, lists, tables, events of a watch, errors
    json_stream   JSON, item by item, in bounded memory
    messages      the same in Kubernetes' protobuf
    logs          what containers print
    masker        which of them an answer needs
    pointers      paths of a JSON patch
    returned      masks that come back in a write, and writes that would tell what is masked
    redacting     what of a body is recorded and shown to approvers
"""
from enforcer.protocols.kubernetes.masking.labels import labels_of_answer, never_shown
from enforcer.protocols.kubernetes.masking.masker import Masker, make_masker
from enforcer.protocols.kubernetes.masking.redacting import redact_body
from enforcer.protocols.kubernetes.masking.returned import returned_masks

__all__ = ["Masker", "labels_of_answer", "make_masker", "never_shown", "redact_body", "returned_masks"]
