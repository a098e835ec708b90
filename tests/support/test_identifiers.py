"""Names, classes, objects and configs, all to the object that they stand for."""

import pytest

from cnnlite.support.identifiers import from_identifier, to_config


class Base:
    def __init__(self, size=1):
        self.size = size

    def get_config(self):
        return {"size": self.size}


class BigThing(Base):
    pass


TABLE = {"big_thing": BigThing, "big": BigThing, "base": Base}


def get(identifier):
    return from_identifier(identifier, TABLE, Base, "thing")


@pytest.mark.parametrize("identifier", ["big_thing", "big", "BIG_THING", "Big", "BigThing", BigThing])
def test_a_name_of_either_spelling_and_a_class_make_a_new_object(identifier):
    first, second = get(identifier), get(identifier)
    assert type(first) is BigThing
    assert first is not second


def test_an_object_is_returned_itself():
    thing = BigThing(3)
    assert get(thing) is thing


def test_a_config_makes_the_object_that_it_was_taken_from():
    restored = get(to_config(BigThing(3)))
    assert type(restored) is BigThing
    assert restored.size == 3


def test_a_function_is_returned_itself():
    def function(shape, dtype):
        return None

    assert get(function) is function


@pytest.mark.parametrize("identifier", ["bg_thing", "BigThin"])
def test_an_unknown_name_is_answered_with_the_known_ones_and_a_guess(identifier):
    with pytest.raises(ValueError, match=rf"Unknown thing: '{identifier}'\. Known: base, big, big_thing\. Did you"):
        get(identifier)


def test_an_unknown_class_in_a_config_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown thing: 'Other'\. Known: base"):
        get({"class_name": "Other", "config": {}})


@pytest.mark.parametrize("identifier", [3, None, int, {"class_name": "BigThing"}, ["big"]])
def test_what_is_none_of_these_is_refused(identifier):
    with pytest.raises(TypeError, match=r"thing must be a name, a Base or a function. Received: .* Known names: base"):
        get(identifier)


def test_what_has_no_config_can_not_be_saved():
    assert to_config(None) is None
    with pytest.raises(ValueError, match=r"has no get_config\(\) and can't be written to a file"):
        to_config(lambda shape, dtype: None)
