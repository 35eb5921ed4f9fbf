"""Stop sequences are found wherever the text is cut, and only what may become one is held back."""

from hypothesis import given
from hypothesis import strategies as st

from charlm_server.engine.stop_sequences import StopAutomaton, StopMatch, StopMatcher

SHORT_TEXTS = st.binary(max_size=30).map(lambda data: bytes(byte % 3 + 97 for byte in data))
STOPS = st.lists(SHORT_TEXTS.filter(len).map(lambda stop: stop[:5]), min_size=1, max_size=4)


def first_match(stops: list[bytes], text: bytes) -> StopMatch | None:
    """The five-line oracle: the earliest end, and of those the longest stop."""
    for end in range(1, len(text) + 1):
        ending_here = [stop for stop in stops if text[:end].endswith(stop)]
        if ending_here:
            stop = max(ending_here, key=len)
            return StopMatch(stop, end - len(stop), end)
    return None


def longest_open_prefix(stops: list[bytes], text: bytes) -> int:
    prefixes = {stop[:length] for stop in stops for length in range(1, len(stop))}
    return max((len(prefix) for prefix in prefixes if text.endswith(prefix)), default=0)


@given(STOPS, SHORT_TEXTS)
def test_the_first_match_is_found(stops: list[bytes], text: bytes) -> None:
    matcher = StopMatcher(StopAutomaton(stops))

    matcher.feed(text)

    assert matcher.found == first_match(stops, text)


@given(STOPS, SHORT_TEXTS)
def test_only_a_proper_prefix_of_a_stop_is_held_back(stops: list[bytes], text: bytes) -> None:
    matcher = StopMatcher(StopAutomaton(stops))

    for index in range(len(text)):
        matcher.feed(text[index : index + 1])
        if matcher.found is not None:
            break

        assert matcher.num_held == longest_open_prefix(stops, text[: index + 1])


@given(STOPS, SHORT_TEXTS, st.integers(1, 7))
def test_chunking_changes_nothing(stops: list[bytes], text: bytes, chunk: int) -> None:
    whole, cut = StopMatcher(StopAutomaton(stops)), StopMatcher(StopAutomaton(stops))

    whole.feed(text)
    for start in range(0, len(text), chunk):
        if cut.found is None:
            cut.feed(text[start : start + chunk])

    assert cut.found == whole.found


def test_of_stops_that_end_together_the_longest_matches() -> None:
    matcher = StopMatcher(StopAutomaton([b"b", b"ab"]))

    matcher.feed(b"xxab")

    assert matcher.found == StopMatch(b"ab", 2, 4)
