"""Cuts lists that are longer than a stage asks for."""

from __future__ import annotations

from broadway_py.flow.failure import place_after
from broadway_py.flow.frames import Frame

__all__ = ["cut"]


def cut(frame: Frame, most: int) -> list[Frame]:
    """Returns *frame* as lists of at most *most* elements.

    The origin of each says which piece it is. Only the last piece has the highest event time of the whole list: the
    time of a piece must not make the elements of the next piece late.
    """
    count = -(-len(frame.elements) // most)
    if count <= 1:
        return [frame]
    pieces: list[Frame] = []
    origin, stamped = frame.origin, frame.stamped
    for index in range(count):
        places = range(index * most, min((index + 1) * most, len(frame.elements)))
        is_end = index == count - 1
        own = None if stamped is None else stamped.part(places)
        pieces.append(
            Frame(
                # Events with times may be in another order than the elements.
                frame.elements[places.start : places.stop] if own is None else list(own.events),
                partition=frame.partition,
                origin=None if origin is None else origin.piece(index, count),
                first=place_after(frame.first, places.start),
                stamped=own,
                high=frame.high if is_end else None,
                side=frame.side,
                is_last=frame.is_last and is_end,
            )
        )
    return pieces
