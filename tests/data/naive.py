"""The loops of the compiled core for data, one step after the other: what it must give."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["assign", "draw_genres", "fill", "find_repeats", "near", "soften"]


def assign(lengths, width):
    n = lengths.size
    # Sequences in order of falling length, the first one first among equals (a counting sort).
    start = np.zeros(width + 2, np.int64)
    for length in lengths:
        start[width - length + 1] += 1
    for length in range(width + 1):
        start[length + 1] += start[length]
    order = np.empty(n, np.int64)
    for i in range(n):
        place = width - lengths[i]
        order[start[place]] = i
        start[place] += 1
    # Rows with equal room form a stack: head[room] is its top, below[row] what lies under a row.
    head = np.full(width + 1, -1, np.int64)
    below = np.empty(n, np.int64)
    row = np.empty(n, np.int64)
    column = np.empty(n, np.int64)
    rows = 0
    for j in range(n):
        i = order[j]
        length = lengths[i]
        room = length
        while room <= width and head[room] < 0:
            room += 1
        if room > width:
            room = width
            row[i] = rows
            rows += 1
        else:
            row[i] = head[room]
            head[room] = below[row[i]]
        column[i] = width - room
        below[row[i]] = head[room - length]
        head[room - length] = row[i]
    return row, column, rows


def fill(items, ends, lengths, row, column, weight, grid, weights):
    segments = np.zeros(grid.shape[1], np.int64)
    for i in range(ends.size):
        r = row[i]
        segments[r] += 1
        first = ends[i] - 1 - lengths[i]
        for j in range(lengths[i]):
            c = column[i] + j
            grid[0, r, c] = items[first + j]
            grid[1, r, c] = items[first + j + 1]
            grid[2, r, c] = j
            grid[3, r, c] = segments[r]
            weights[r, c] = weight[i]


def soften(ids, cumulative, share, numbers, ends, lengths, row, column, targets):
    at = 0
    for i in range(ends.size):
        first = ends[i] - lengths[i]  # of the interactions that are targets
        for j in range(lengths[i]):
            interaction = first + j
            if numbers[0, at] < share and ids[interaction, 0] > 0:
                place = 0
                while place + 1 < ids.shape[1] and cumulative[interaction, place] <= numbers[1, at]:
                    place += 1
                while ids[interaction, place] == 0:
                    place -= 1
                targets[row[i], column[i] + j] = ids[interaction, place]
            at += 1


def near(points, reach):
    n = len(points)
    offsets = np.zeros(n + 1, np.int64)
    ids = np.empty(0, np.int32)
    for counting in (True, False):
        at = 0
        for i in range(n):
            for j in range(n):
                apart = 2 - math.cos(points[i, 0] - points[j, 0]) - math.cos(points[i, 1] - points[j, 1])
                if apart <= reach:
                    if not counting:
                        ids[at] = j
                    at += 1
            offsets[i + 1] = at
        if counting:
            ids = np.empty(at, np.int32)
    return offsets, ids


def draw_genres(users, uniform, points, home, centres, offsets, ids, concentration):
    out = np.empty(users.size, np.int64)
    running = np.empty(np.max(offsets[1:] - offsets[:-1]), np.float64)
    cosine, sine = np.cos(centres), np.sin(centres)
    for i in range(users.size):
        user = users[i]
        first, last = offsets[home[user]], offsets[home[user] + 1]
        total, (a, b) = 0.0, points[user]
        cos_a, sin_a, cos_b, sin_b = math.cos(a), math.sin(a), math.cos(b), math.sin(b)
        for j in range(first, last):
            centre = ids[j]
            close = cosine[centre, 0] * cos_a + sine[centre, 0] * sin_a  # the cosine of the difference
            close += cosine[centre, 1] * cos_b + sine[centre, 1] * sin_b
            total += math.exp(concentration * close)
            running[j - first] = total
        place = 0
        while place < last - first - 1 and running[place] <= uniform[i] * total:
            place += 1
        out[i] = ids[first + place]
    return out


def find_repeats(users, drawn, step, items, offsets):
    repeated = np.zeros(users.size, np.bool_)
    for i in range(users.size):
        first = offsets[users[i]]
        items[first + step] = drawn[i]
        for j in range(first, first + step):
            if items[j] == drawn[i]:
                repeated[i] = True
                break
    return repeated
