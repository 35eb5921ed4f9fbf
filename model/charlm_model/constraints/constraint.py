"""A constraint on outputs as an automaton over a model's tokens.

Legend: S states, N prefixes of a character, K classes, V vocabulary.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charlm_model.constraints.character_sets import ranges_of_characters
from charlm_model.constraints.dfa import (
    DEAD,
    MAX_NFA_STATES,
    Automaton,
    AutomatonTooLarge,
    automaton_of,
)
from charlm_model.constraints.regex_parser import (
    Alternation,
    Characters,
    Concatenation,
    Node,
    Repetition,
    parse,
)
from charlm_model.constraints.token_spelling import (
    FAR,
    NOWHERE,
    Int32s,
    Ints,
    Spelling,
    spelling_of,
)
from charlm_model.errors import InvalidConstraint
from charlm_model.sampling.processors import Mask
from charlm_model.text.vocabulary import END_OF_TEXT_ID

MAX_TOKEN_WORK = 20_000_000  # symbols followed to count distances in tokens: about a second
MAX_KEPT_BYTES = 4 << 20  # of the rows that one constraint caches


@dataclass(frozen=True, slots=True)
class Row:
    """For one state and every token: the next state, and how many more tokens an end then needs.

    `missing_V` may be too high where tokens have several symbols: in large automata, which count
    symbols, and within a character.
    """

    next_V: Ints
    missing_V: Ints

    @property
    def num_bytes(self) -> int:
        return self.next_V.nbytes + self.missing_V.nbytes


class Constraint:
    """States are integers; an output starts in `start`. Rows are computed on demand."""

    start = 0

    def __init__(self, automaton: Automaton, token_bytes: Sequence[bytes]) -> None:
        self._spelling: Spelling = spelling_of(token_bytes, automaton.partition)
        self._is_accepting_S = automaton.is_accepting_S
        transitions = _transitions_of(automaton, self._spelling.rest_NK[0])
        self._missing_S = _shortest(automaton.is_accepting_S, transitions)
        # Drops transitions that no token can take, or that lead to states without an end.
        targets_SK = automaton.next_SK
        is_open_SK = (targets_SK != DEAD) & (self._spelling.rest_NK[0] < FAR)
        self._next_SK = np.where(is_open_SK & (self._missing_S[targets_SK] < FAR), targets_SK, DEAD)
        if not self.counts_symbols:
            self._missing_S = _shortest(
                automaton.is_accepting_S, [*transitions, *self._by_tokens()]
            )
        self._is_complete_S = (self._next_SK == DEAD).all(axis=1)
        self._rows: OrderedDict[int, Row] = OrderedDict()
        self._num_kept_bytes = 0

    @property
    def num_states(self) -> int:
        return len(self._next_SK)

    @property
    def counts_symbols(self) -> bool:
        """Whether every token is one symbol: then `missing` is exact, else an upper bound."""
        return len(self._spelling.symbols_VL[0]) == 1

    @property
    def is_empty(self) -> bool:
        """Whether no text of this vocabulary matches."""
        return bool(self._missing_S[0] >= FAR)

    def missing(self, state: int) -> int:
        """How many more tokens an allowed end needs, by the shortest known path."""
        return int(self._missing_at(np.array([state]))[0])

    def is_accepting(self, state: int) -> bool:
        """Whether the output may end here."""
        whole, place = divmod(state, self._spelling.num_places)
        return place == 0 and bool(self._is_accepting_S[whole])

    def is_complete(self, state: int) -> bool:
        """Whether the output must end here, because no token can follow."""
        whole, place = divmod(state, self._spelling.num_places)
        return place == 0 and bool(self._is_complete_S[whole])

    def row(self, state: int) -> Row:
        """What may follow a state: O(V) the first time, then cached."""
        if state in self._rows:
            self._rows.move_to_end(state)
            return self._rows[state]
        row = self._made_row(state)
        self._rows[state] = row
        self._num_kept_bytes += row.num_bytes
        while self._num_kept_bytes > MAX_KEPT_BYTES and len(self._rows) > 1:
            self._num_kept_bytes -= self._rows.popitem(last=False)[1].num_bytes
        return row

    def state_after(self, ids: Sequence[int], state: int = start) -> int:
        """The state after more tokens, or DEAD."""
        for token_id in ids:
            if state != DEAD:
                state = int(self.row(state).next_V[token_id])
        return state

    def _made_row(self, state: int) -> Row:
        next_V = self._followed(state)
        missing_V = self._missing_at(next_V)
        next_V[missing_V >= FAR] = DEAD
        next_V[END_OF_TEXT_ID] = state  # it adds nothing to the text
        missing_V[END_OF_TEXT_ID] = 0 if self.is_accepting(state) else FAR
        return Row(next_V, missing_V)

    def _followed(self, state: int) -> Ints:
        """The state after each token, whether or not an end can be reached from it."""
        spelling, num_places = self._spelling, self._spelling.num_places
        whole, place = divmod(state, num_places)
        wholes_V = np.full(len(spelling.symbols_VL), whole)
        places_V = np.full(len(spelling.symbols_VL), place)
        for symbols_V in spelling.symbols_VL.T:
            codes_V = np.where(places_V == NOWHERE, NOWHERE, spelling.next_NY[places_V, symbols_V])
            is_whole_V = codes_V >= num_places
            after_V = self._next_SK[wholes_V, np.where(is_whole_V, codes_V - num_places, 0)]
            wholes_V = np.where(is_whole_V, after_V, wholes_V)
            places_V = np.where(is_whole_V, np.where(after_V == DEAD, NOWHERE, 0), codes_V)
        return np.where(places_V == NOWHERE, DEAD, wholes_V * num_places + places_V)

    def _by_tokens(self) -> list["_Transitions"]:
        """Transitions by one token of several symbols; none for a large automaton."""
        if self.num_states * self._spelling.symbols_VL.size > MAX_TOKEN_WORK:
            return []
        sources, targets = [], []
        for whole in range(self.num_states):
            next_V = self._followed(whole * self._spelling.num_places)[END_OF_TEXT_ID + 1 :]
            wholes_V, places_V = np.divmod(next_V, self._spelling.num_places)
            reached = np.unique(wholes_V[(next_V != DEAD) & (places_V == 0)])
            sources.append(np.full(len(reached), whole))
            targets.append(reached)
        return [_Transitions(np.concatenate(sources), np.concatenate(targets), self.num_states, 1)]

    def _missing_at(self, states_V: Ints) -> Ints:
        """Distance to an allowed end for each state; FAR if there is none."""
        wholes_V, places_V = np.divmod(states_V, self._spelling.num_places)
        missing_V = np.where(states_V == DEAD, FAR, self._missing_S[wholes_V])
        for at in np.flatnonzero((states_V != DEAD) & (places_V != 0)):
            next_K = self._next_SK[wholes_V[at]]
            missing_K = np.where(next_K == DEAD, FAR, self._missing_S[next_K])
            rest_K = self._spelling.rest_NK[places_V[at]]
            missing_V[at] = min(FAR, int((missing_K + rest_K).min()))
        return missing_V


def _shortest(is_accepting_S: Mask, transitions: Sequence["_Transitions"]) -> Ints:
    """The shortest distance from each state to an accepting one (Dijkstra, backward)."""
    missing_S = np.where(is_accepting_S, 0, FAR)
    at_distance = {0: [np.flatnonzero(is_accepting_S)]}
    while at_distance:
        distance = min(at_distance)
        for reached in at_distance.pop(distance):
            for each in transitions:
                previous = each.into(reached[missing_S[reached] == distance])
                nearer = previous[missing_S[previous] > distance + each.width]
                if len(nearer):
                    missing_S[nearer] = distance + each.width
                    at_distance.setdefault(distance + each.width, []).append(nearer)
    return missing_S


def _transitions_of(automaton: Automaton, rest_K: Int32s) -> list["_Transitions"]:
    """The automaton's transitions by number of symbols, without those that no token spells."""
    transitions = []
    for width in sorted(set(rest_K.tolist()) - {FAR}):
        targets_SK = automaton.next_SK[:, rest_K == width]
        states, columns = np.nonzero(targets_SK != DEAD)
        targets = targets_SK[states, columns].astype(np.int64)
        transitions.append(_Transitions(states, targets, len(targets_SK), width))
    return transitions


class _Transitions:
    """Transitions of one width, indexed by target."""

    def __init__(self, sources: Ints, targets: Ints, num_states: int, width: int) -> None:
        self.width = width
        pairs = np.unique(targets * num_states + sources)
        targets, self._sources = np.divmod(pairs, num_states)
        self._starts = np.searchsorted(targets, np.arange(num_states + 1))

    def into(self, states: Ints) -> Ints:
        """The states that lead to these."""
        found = [self._sources[self._starts[each] : self._starts[each + 1]] for each in states]
        return np.unique(np.concatenate(found)) if found else states


def from_regex(pattern: str, token_bytes: Sequence[bytes]) -> Constraint:
    """The whole output must match the pattern. Raises InvalidConstraint."""
    return _compiled(parse(pattern), token_bytes, "regex", pattern)


def from_choices(texts: Sequence[str], token_bytes: Sequence[bytes]) -> Constraint:
    """The output is one of the texts. Raises InvalidConstraint."""
    if not texts or not all(texts):
        raise InvalidConstraint("choices.texts", list(texts), "at least one text, none empty")
    num_characters = sum(map(len, texts))
    if num_characters > MAX_NFA_STATES:
        allowed = f"at most {MAX_NFA_STATES} characters long in all"
        raise InvalidConstraint("choices.texts", num_characters, allowed)
    sets = {each: Characters(ranges_of_characters(each)) for text in texts for each in text}
    tree = Alternation(tuple(Concatenation(tuple(sets[each] for each in text)) for text in texts))
    return _compiled(tree, token_bytes, "choices.texts", list(texts))


def from_allowed_characters(characters: str, token_bytes: Sequence[bytes]) -> Constraint:
    """The output has only these characters. Raises InvalidConstraint."""
    if not characters:
        raise InvalidConstraint("allowed_characters", "", "at least one character")
    tree = Repetition(Characters(ranges_of_characters(characters)), 0, None)
    return _compiled(tree, token_bytes, "allowed_characters", characters)


def _compiled(tree: Node, token_bytes: Sequence[bytes], field: str, value: object) -> Constraint:
    try:
        constraint = Constraint(automaton_of(tree), token_bytes)
    except AutomatonTooLarge as error:
        allowed = f"compiled to an automaton of at most {error.limit} {error.what}"
        raise InvalidConstraint(field, value, allowed) from None
    if constraint.is_empty or constraint.is_complete(constraint.start):
        allowed = "matched by some text, not empty, of the model's vocabulary"
        raise InvalidConstraint(field, value, allowed)
    return constraint
