"""The offline chat: says what its system message contains and nothing else. Core.

No language model that ships inside a package tells the truth reliably, so this is none: it finds the sentence of the
system message that fits the caller's words, in the language of the caller, and says so when there is none.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ari_app.offline.language import language_of, words

# Words of one topic are one to the search. The first word of each line names the topic.
_TOPICS: Mapping[str, str] = {
    "hours": "open opens opening opened close closes closed closing hour hours time times when schedule "
    "abre abren abrir abierto abierta abiertos cierra cierran cerrar cerrado horario hora horas cuando",
    "price": "cost costs price prices priced charge charges fee euro euros dollar dollars pay expensive cheap much "
    "cuesta cuestan cuanto precio precios vale euros dolares pagar costo coste",
    "place": "where address located location street road avenue place find directions "
    "donde direccion ubicacion calle avenida lugar esta queda",
    "book": "book booking appointment appointments reserve reservation cita reservar reserva",
    "park": "park parking aparcar aparcamiento estacionar estacionamiento",
    "phone": "phone telephone telefono",
}
_TOPIC_OF = {word: topic for topic, line in _TOPICS.items() for word in line.split()}
_DAYS = (
    ("monday", "lunes"),
    ("tuesday", "martes"),
    ("wednesday", "miercoles"),
    ("thursday", "jueves"),
    ("friday", "viernes"),
    ("saturday", "sabado"),
    ("sunday", "domingo"),
)
_DAY_OF = {name: number for number, names in enumerate(_DAYS) for name in names}
_WEEKEND = frozenset("weekend weekends".split()) | {"finde"}
_SAME = {
    "tire": "tyre",
    "tires": "tyre",
    "bike": "bicycle",
    "bikes": "bicycle",
    "fixed": "repair",
    "fix": "repair",
}
_STOP = frozenset(
    "a an the of and or in on at for with how what which who is are am was be do does did you your yours my me it its "
    "i we us our can could would will to from by as that this there here have has like want know tell please about "
    "hello hi hey so well okay ok if get got any some not no yes great very thank thanks "
    "el la los las un una de del que y o en por para con como es son su sus mi se lo al me te nos les si no hay tiene "
    "tienen puedo quiero favor cual hola buenos buenas dias tardes noches gracias muy pero le".split()
)

_GREETING = frozenset(
    "hello hi hey good morning afternoon evening hola buenos buenas dias tardes noches".split()
)
_GOODBYE = frozenset("bye goodbye adios luego".split())
_THANKS = frozenset("thanks thank gracias".split())
_AGAIN = re.compile(r"\b(again|repeat|pardon|say that|repite|repetir|repita|otra vez)\b")
_FOLLOW_UP = re.compile(r"^(and|what about|how about|y|que tal)\b")
_INSTRUCTION = re.compile(
    r"^(you (are|must|should|may|can|will|speak|answer|help)|keep|always|never|answer|do not|don't|please|be|speak|"
    r"reply|respond|use|detect|the (caller|user)s? (may|can|might)|greet|if (the|a) caller|"
    r"eres|usted es|responde|responda|mant[eé]n|habla|siempre|nunca|no )\b",
    re.IGNORECASE,
)
_MARKER = re.compile(r"\b(facts|datos|hechos)\s*:", re.IGNORECASE)

MIN_SCORE = 0.5
CLOSE_WORD = 0.84
"""Similarity at which a word that speech-to-text garbled still counts."""

_PHRASES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "greet": "Hello! How can I help you?",
        "bye": "You are welcome. Thank you for calling, goodbye.",
        "thanks": "You are welcome. Is there anything else?",
        "yes": "What would you like to know?",
        "unknown": "I am sorry, I do not know that. I can tell you about {topics}.",
        "nothing": "I am sorry, I did not catch that.",
        "no_facts": "You said: {said} I am the built-in offline assistant and I know no facts. "
        "With an API key a real model would answer you.",
        "and": " and ",
        "hours": "our opening hours",
        "price": "our prices",
        "place": "where we are",
        "book": "how to book",
        "park": "parking",
        "phone": "our phone number",
        "rest": "what we do",
    },
    "es": {
        "greet": "¡Hola! ¿En qué puedo ayudarle?",
        "bye": "De nada. Gracias por llamar, adiós.",
        "thanks": "De nada. ¿Desea algo más?",
        "yes": "¿Qué le gustaría saber?",
        "unknown": "Lo siento, no lo sé. Puedo informarle sobre {topics}.",
        "nothing": "Lo siento, no le he entendido.",
        "no_facts": "Usted dijo: {said} Soy el asistente incorporado sin conexión y no conozco datos. "
        "Con una clave de API le respondería un modelo de verdad.",
        "and": " y ",
        "hours": "nuestro horario",
        "price": "nuestros precios",
        "place": "dónde estamos",
        "book": "cómo reservar",
        "park": "el aparcamiento",
        "phone": "nuestro teléfono",
        "rest": "lo que hacemos",
    },
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence of the system message and the terms it is found by."""

    text: str
    terms: frozenset[str]
    language: str


def facts_of(system_message: str) -> list[Fact]:
    """The sentences that state something: those after `Facts:`, or all that are not instructions."""
    marker = _MARKER.search(system_message)
    body = system_message[marker.end() :] if marker else system_message
    sentences = (s.strip() for s in re.split(r"(?<=[.!?])\s+|\n+", body))
    return [
        Fact(sentence, frozenset(terms_of(sentence)), language_of(sentence))
        for sentence in sentences
        if len(sentence) > 3 and (marker or not _INSTRUCTION.match(sentence))
    ]


def terms_of(text: str) -> set[str]:
    """What a text is about: topics, days (ranges spelled out), and the stems of its other words."""
    found = words(re.sub(r"\bvery much\b", "", text, flags=re.IGNORECASE))
    terms = set()
    for word in found:
        if word in _DAY_OF:
            terms.add(f"day{_DAY_OF[word]}")
        elif word in _WEEKEND:
            terms |= {"day5", "day6"}
        elif word in _TOPIC_OF:
            terms.add("#" + _TOPIC_OF[word])
        elif word not in _STOP:
            terms.add(_stem(_SAME.get(word, word)))
    for first, between, last in zip(found, found[1:], found[2:], strict=False):
        if between in ("to", "through", "a") and first in _DAY_OF and last in _DAY_OF:
            terms |= {f"day{number}" for number in range(_DAY_OF[first], _DAY_OF[last] + 1)}
    return terms


def answer(messages: Sequence[tuple[str, str]]) -> str:
    """Continue a conversation of (role, content) pairs: the reply to the last user message."""
    system = "\n".join(content for role, content in messages if role in ("system", "developer"))
    said = [content for role, content in messages if role == "user"]
    replies = [content for role, content in messages if role == "assistant"]
    if not said:
        return _PHRASES["en"]["greet"]
    text = said[-1].strip()
    language = language_of(text)
    phrases = _PHRASES[language]
    found = set(words(text))
    if replies and _AGAIN.search(text.lower()):
        return replies[-1]
    if not found:
        return phrases["nothing"]
    facts = facts_of(system)
    in_language = [fact for fact in facts if fact.language == language]
    terms = terms_of(text)
    earlier = terms_of(said[-2]) if len(said) > 1 and _is_follow_up(text, terms) else set()
    best = _best(in_language or facts, terms - _small_talk_terms(), earlier)
    if best:
        return best
    return _small_talk(found, phrases) or _cannot(facts, text, phrases)


def _small_talk_terms() -> frozenset[str]:
    return frozenset(_stem(word) for word in _GREETING | _GOODBYE | _THANKS)


def _small_talk(found: set[str], phrases: Mapping[str, str]) -> str | None:
    if found & _GOODBYE:
        return phrases["bye"]
    if found & _THANKS:
        return phrases["thanks"]
    if found & _GREETING:
        return phrases["greet"]
    if found <= {"yes", "yeah", "sure", "si", "claro"}:
        return phrases["yes"]
    if found <= {"no", "nope", "nothing", "nada", "mas", "else"}:
        return phrases["bye"]
    return None


def _cannot(facts: Sequence[Fact], text: str, phrases: Mapping[str, str]) -> str:
    if not facts:
        said = text if text[-1:] in ".!?" else text + "."
        return phrases["no_facts"].format(said=said)
    known = {term[1:] for fact in facts for term in fact.terms if term.startswith("#")}
    topics = [phrases[topic] for topic in _TOPICS if topic in known] or [phrases["rest"]]
    head, last = topics[:-1], topics[-1]
    return phrases["unknown"].format(topics=", ".join(head) + phrases["and"] + last if head else last)


def _is_follow_up(text: str, terms: set[str]) -> bool:
    plain = " ".join(words(text))
    return bool(_FOLLOW_UP.match(plain)) and not any(term.startswith("#") for term in terms)


def _best(facts: Sequence[Fact], terms: set[str], earlier: set[str]) -> str | None:
    """The fact that fits, two if they fit alike; None if none does."""
    weights = {
        term: math.log(1 + len(facts) / sum(term in fact.terms for fact in facts))
        for fact in facts
        for term in fact.terms
    }
    scored = []
    for order, fact in enumerate(facts):
        score = sum(_match(term, fact, weights) for term in terms)
        score += 0.5 * sum(_match(term, fact, weights) for term in earlier - terms)
        # A topic asked for and not in the fact: some other sentence with the same noun.
        score -= sum(0.3 for term in terms if term.startswith("#") and term not in fact.terms)
        scored.append((score, -order, fact))
    scored.sort(reverse=True, key=lambda entry: entry[:2])
    if not scored or scored[0][0] < MIN_SCORE:
        return None
    chosen = [fact for score, _, fact in scored[:2] if score > scored[0][0] - 1e-9]
    return " ".join(fact.text for fact in facts if fact in chosen)


def _match(term: str, fact: Fact, weights: Mapping[str, float]) -> float:
    if term in fact.terms:
        return weights[term]
    if len(term) < 5 or term.startswith("#"):
        return 0.0
    close = difflib.get_close_matches(term, fact.terms, 1, CLOSE_WORD)
    return 0.7 * weights[close[0]] if close else 0.0


def _stem(word: str) -> str:
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
