"""Chunks add up to the final text, whatever the cuts, the characters and the stops."""

from hypothesis import example, given
from hypothesis import strategies as st

from charlm_server.engine.detokenizer import Release, TextAssembler, Utf8Assembler
from charlm_server.engine.stop_sequences import StopAutomaton

HANGUL_AND_EMOJI = "한국어 텍스트 👩‍🚀🇰🇷 naïve\u0301 text\n"


def cut(data: bytes, lengths: list[int]) -> list[bytes]:
    """The data in tokens of the given lengths, in turn and round again."""
    tokens, start = [], 0
    while start < len(data):
        length = lengths[len(tokens) % len(lengths)]
        tokens.append(data[start : start + length])
        start += length
    return tokens


def assemble(assembler: TextAssembler, tokens: list[bytes], per_chunk: int) -> list[Release]:
    releases: list[Release] = []
    for start in range(0, len(tokens), per_chunk):
        shown, stopped = assembler.feed(tokens[start : start + per_chunk])
        releases += shown
        if stopped is not None:
            return releases
    return releases + assembler.finish()


LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4)
STOPS = st.lists(st.sampled_from(["국어", "text", "👩‍🚀", "x", "tex"]), max_size=3)


@given(st.binary(max_size=40), LENGTHS)
@example(HANGUL_AND_EMOJI.encode(), [1])
@example(b"\xed\xa0\x80\xf0\x9f\x91", [1])
def test_utf8_in_any_cuts_equals_decoding_at_once(data: bytes, lengths: list[int]) -> None:
    assembler = Utf8Assembler()

    text = "".join(assembler.feed(piece) for piece in cut(data, lengths))

    assert text + assembler.feed(b"", is_last=True) == data.decode(errors="replace")


@given(st.text(max_size=20).map(lambda s: s + HANGUL_AND_EMOJI), LENGTHS, st.integers(1, 5), STOPS)
def test_chunks_add_up_to_the_final_text(
    text: str, lengths: list[int], per_chunk: int, stops: list[str]
) -> None:
    tokens = cut(text.encode(errors="replace"), lengths)
    automaton = StopAutomaton([stop.encode() for stop in stops]) if stops else None

    releases = assemble(TextAssembler(automaton), tokens, per_chunk)
    whole = assemble(TextAssembler(automaton), tokens, len(tokens))

    data = b"".join(release.data for release in releases)
    assert data == b"".join(release.data for release in whole)
    assert "".join(release.text for release in releases) == data.decode(errors="replace")
    assert sum(release.num_tokens for release in releases) == sum(r.num_tokens for r in whole)


@given(LENGTHS, st.integers(1, 5))
def test_a_stop_never_leaks(lengths: list[int], per_chunk: int) -> None:
    tokens = cut(b"before STOP after", lengths)
    stop = StopAutomaton([b"STOP"])

    shown = b"".join(r.data for r in assemble(TextAssembler(stop), tokens, per_chunk))

    assert shown == b"before "


@given(LENGTHS, st.integers(1, 5))
def test_a_stop_is_shown_when_asked_for(lengths: list[int], per_chunk: int) -> None:
    tokens = cut(b"before STOP after", lengths)
    assembler = TextAssembler(StopAutomaton([b"STOP"]), include_stop=True)

    assert b"".join(r.data for r in assemble(assembler, tokens, per_chunk)) == b"before STOP"


@given(LENGTHS, st.integers(1, 5))
def test_released_tokens_spell_no_more_than_the_text(lengths: list[int], per_chunk: int) -> None:
    """Released tokens never reveal text that is held back or cut."""
    tokens = cut(b"aSTOaSTSTOPz", lengths)
    releases = assemble(TextAssembler(StopAutomaton([b"STOP"])), tokens, per_chunk)

    shown, num_tokens = b"", 0
    for release in releases:
        shown, num_tokens = shown + release.data, num_tokens + release.num_tokens

        assert shown.startswith(b"".join(tokens[:num_tokens]))


def test_text_that_cannot_become_a_stop_is_shown_at_once() -> None:
    assembler = TextAssembler(StopAutomaton([b"\n\n"]))

    [release], _ = assembler.feed([b"a", b"b"])

    assert release.data == b"ab"


@given(st.integers(1, 20), STOPS, LENGTHS, st.integers(1, 4))
def test_a_release_has_no_more_tokens_than_asked_for(
    per_chunk: int, stops: list[str], lengths: list[int], max_tokens: int
) -> None:
    tokens = cut(HANGUL_AND_EMOJI.encode(), lengths)
    automaton = StopAutomaton([stop.encode() for stop in stops])

    whole = assemble(TextAssembler(automaton), tokens, per_chunk)
    pieces = assemble(TextAssembler(automaton, max_tokens=max_tokens), tokens, per_chunk)

    assert max(piece.num_tokens for piece in pieces) <= max_tokens
    assert "".join(piece.text for piece in pieces) == "".join(release.text for release in whole)
    assert b"".join(piece.data for piece in pieces) == b"".join(r.data for r in whole)


@given(LENGTHS, st.integers(1, 4))
def test_the_token_that_completes_a_stop_is_known(lengths: list[int], per_chunk: int) -> None:
    tokens = cut(b"before STOP after", lengths)
    assembler = TextAssembler(StopAutomaton([b"STOP"]))

    for start in range(0, len(tokens), per_chunk):
        _, stopped = assembler.feed(tokens[start : start + per_chunk])
        if stopped is not None:
            break

    assert stopped is not None
    sampled = tokens[: start + stopped.num_tokens]
    assert b"STOP" in b"".join(sampled)
    assert b"STOP" not in b"".join(sampled[:-1])
