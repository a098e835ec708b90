"""How a good input becomes a bad one: changes of its bytes, and of the values within its JSON."""

import json

# Each stands in JSON as text, so that there may be what json.dumps would not write.
VALUES = [
    "null", "true", "false", "0", "1", "-1", "2", "3", "7", "64", "1000000", "2147483648", "9223372036854775808",
    "18446744073709551616", "1e30", "1" + "0" * 400, "0.5", "-0.0", "1e308", "1e999", "NaN", "Infinity", "-Infinity",
    '""', '"x"', '"relu"', '"softmax"', '"float64"', '"float16"', '"Sequential"', '"Dense"', '"mse"', '"os"',
    '"\\ud800"', '"a/b"', '"../../x"', '"\\u001b[2J"', "[]", "{}", "[null]", "[[]]", "[1, 2]", "[1, 2, 3]", '["a"]',
    '{"class_name": "Dense", "config": {"units": 2}}', '{"class_name": "os", "config": {}}', '{"function": "system"}',
    '{"class_name": "Orthogonal", "config": {}}', "[" * 200 + "]" * 200, "[" * 100_000, "[" + "1," * 1000 + "1]",
    '"' + "x" * 10_000 + '"',
]
TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\0", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"PK\3\4",
    b"\x1f\x8b\x08",
    b"\x93NUMPY\1\0", b"'|O'", b"'descr'", b"'shape'", b"F32", b"I64", b"BF16", b"\n", b"NaN", b"__metadata__",
]


def mutate_bytes(data, random, most=1 << 20):
    """Return a copy with one to four changes: of bits, cut off, cut out, repeated, or a token put in."""
    data = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place = random.randint(0, len(data))
        length = random.randint(1, 1 << random.randint(0, 8))
        kind = random.randint(0, 6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << random.randint(0, 7)
        elif kind == 1 and place < len(data):
            data[place] = random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randint(0, 255)])
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length] * random.randint(1, 3)
        elif kind == 5:
            data[place:place] = random.choice(TOKENS)
        else:
            data[place : place + length] = random.randbytes(length)
    return bytes(data[:most])


def mutate_json(text, random):
    """Return a text in which one to three values, somewhere inside, are gone, moved, or something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return mutate_bytes(text.encode("utf-8", "replace"), random).decode("utf-8", "replace")
    marks = {}
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        places = list(_places(value))
        if not places:
            break
        holder, key = random.choice(places)
        kind = random.randint(0, 12)
        sizes = [(table, name) for table, name in places if type(table[name]) is int]
        if sizes and random.randint(0, 5) == 0:  # sizes are what costs memory
            holder, key = random.choice(sizes)
            holder[key] = random.choice([0, 1, 10**4, 10**6, 10**8, 2**31 - 1, 2**31, 2**62])
        elif kind > 9 and not isinstance(holder[key], (dict, list)):
            holder[key] = _another(holder[key], [table[name] for table, name in places], random)
        elif kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = [holder[key]]
        elif kind == 2:
            other, where = random.choice(places)
            holder[key] = json.loads(json.dumps(other[where]))
        elif kind == 3 and isinstance(holder, dict):
            holder[random.choice([*holder, "unheard_of", "input_shape", "seed"])] = holder.pop(key)
        elif kind == 4 and isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        else:
            mark = f"mark{len(marks)}"
            marks[f'"{mark}"'] = random.choice(VALUES)
            holder[key] = mark
    text = json.dumps(value)
    for mark, what in marks.items():
        text = text.replace(mark, what)
    return text


def mutate_json_bytes(data, random):
    return mutate_json(data.decode("utf-8", "replace"), random).encode("utf-8", "replace")


def _another(value, values, random):
    """Return a value of the same kind, so that what is strange may still be accepted."""
    same = [other for other in values if type(other) is type(value) and other != value]
    if isinstance(value, int) and random.randint(0, 1):
        return not value if isinstance(value, bool) else value + random.choice([-1, 1, 2])
    if isinstance(value, float) and random.randint(0, 1):
        return value * random.choice([-1, 0, 0.1, 1e-300, 1e300])
    return random.choice(same) if same else value


def _places(value):
    """Yield (table or list, key) of all values within a value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(inner)
