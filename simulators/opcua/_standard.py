"""The standard address space (namespace 0), loaded once a process and shared by all simulated servers.

Loading it takes more than a second and 40 MB; a server changes only a handful of its nodes. So each server has a view
that copies a node when it is first touched. (asyncua offers the same idea with a shelf file on disk.)
"""

from __future__ import annotations

import threading
from typing import Any

from asyncua.server.address_space import AddressSpace, AttributeValue, NodeData, NodeManagementService
from asyncua.server.standard_address_space import standard_address_space

__all__ = ["standard_nodes"]

_loaded: dict[Any, Any] = {}
_loading = threading.Lock()


def _copy(node: Any) -> Any:
    """A node with its own attributes and references; DataValues and ReferenceDescriptions are shared, never changed."""
    copy = NodeData(node.nodeid)
    copy.attributes = {key: AttributeValue(attribute.value) for key, attribute in node.attributes.items()}
    copy.references = list(node.references)
    return copy


class _View(dict[Any, Any]):
    """The nodes of one server: its own, and those of the standard as far as touched."""

    def __missing__(self, key: Any) -> Any:
        node = self[key] = _copy(_loaded[key])
        return node

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in _loaded


def standard_nodes() -> dict[Any, Any]:
    """The nodes for one server's address space, to begin with. Blocks for a second the first time; thread-safe."""
    with _loading:
        if not _loaded:
            space = AddressSpace()
            standard_address_space.fill_address_space(NodeManagementService(space))
            _loaded.update(space._nodes)
    return _View()
