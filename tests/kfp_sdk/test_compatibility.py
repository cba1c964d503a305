"""Nothing that the clients can ask for is left untried."""

import pytest
from compatibility import TESTS, required


def test_every_method_and_command_is_tried(request):
    items = request.session.items
    if {item.path for item in items} != set(TESTS.glob("test_*.py")):
        pytest.skip("only some of the tests are run")
    tried = {mark.args[0] for item in items for mark in item.iter_markers("covers")}
    assert sorted(set(required()) - tried) == [], "no test says that it covers these"
    assert sorted(tried - set(required())) == [], "the clients do not have these"
