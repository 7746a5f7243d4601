"""The ground floor's files: read with errors that say where, written whole or not at all, locked, unpacked, fetched."""

from nn_meter.storage.archives import Archive
from nn_meter.storage.closing import Closing
from nn_meter.storage.downloads import Fetched, download
from nn_meter.storage.files import exists, expanded, locked, reason, replacing, unwritable, write
from nn_meter.storage.reading import (
    Fields,
    check_json,
    legible,
    parse_json,
    plain_name,
    read_bytes,
    read_json,
    read_yaml,
    shown,
)

__all__ = [
    "Archive",
    "Closing",
    "Fetched",
    "Fields",
    "check_json",
    "download",
    "exists",
    "expanded",
    "legible",
    "locked",
    "parse_json",
    "plain_name",
    "read_bytes",
    "read_json",
    "read_yaml",
    "reason",
    "replacing",
    "shown",
    "unwritable",
    "write",
]
