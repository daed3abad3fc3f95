"""A small log in several formats, and what reading it must give."""

from __future__ import annotations

import pyarrow as pa


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def by_label(data):
    """{user: [item, ...]} in outside names."""
    return {
        user: data.item_labels.take(pa.array(data[row] - 1)).to_pylist()
        for row, user in enumerate(data.user_labels.to_pylist())
    }


EVENTS = "user_id,item_id,timestamp\nb,y,3\na,z,2\na,x,1\nb,x,4\na,y,9\n"


WANTED = {"a": ["x", "z", "y"], "b": ["y", "x"]}
