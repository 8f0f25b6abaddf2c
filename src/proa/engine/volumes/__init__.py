"""Volumes: named directories that outlive containers.

volumes/<name>/volume.json   driver, labels, options, created, anonymous or not, and for whom
volumes/<name>/data          what containers see; where a file system of the volume's own is mounted while it is used
volumes/<name>/disk.ext4     that file system, of a volume with a size
volumes/<name>/filling       contents on their way in
"""

from __future__ import annotations

from proa.engine.volumes.collection import Volumes
from proa.engine.volumes.records import Owner, Volume

__all__ = ["Owner", "Volume", "Volumes"]
