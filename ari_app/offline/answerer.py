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

_WHOLE = frozenset({"calle", "tarde"})  # not forms of "call" and "tarda"


def _stem(word: str) -> str:
    """The word without a usual ending of English or Spanish, so that its forms agree."""
    if word in _WHOLE:
        return word
    for ending in ("ing", "ed", "es", "as", "os", "s", "e", "a", "o"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _stems(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in text.split())


# Words of one topic are one to the search.
_TOPICS = {
    "hours": "open close hours schedule abre abren abrir abrimos abierto cierra cierran cerrar cerramos "
    "cerrado horario",
    "price": "cost price charge fee euro dollar pay expensive cheap cuesta cuestan precio dolar pagar costo coste",
    "place": "address located location street road avenue directions direccion ubicacion calle avenida",
    "book": "book appointment reserve reservation cita reservar reserva",
    "park": "park aparcar aparcamiento estacionar estacionamiento",
    "phone": "phone telephone telefono",
    "duration": "takes wait tarda tardan espera esperar",
}
# Words that ask for a topic, though a statement with them need not be of it: "a good time to call back".
_ASKED = {"hours": "time when hora cuando", "price": "much cuanto", "place": "where find donde"}
_TOPIC_OF = {stem: topic for topic, line in _TOPICS.items() for stem in _stems(line)}
_TOPIC_ASKED = _TOPIC_OF | {stem: topic for topic, line in _ASKED.items() for stem in _stems(line)}
_DAYS = (
    "monday lunes",
    "tuesday martes",
    "wednesday miercoles",
    "thursday jueves",
    "friday viernes",
    "saturday sabado",
    "sunday domingo",
)
_DAY_OF = {stem: number for number, names in enumerate(_DAYS) for stem in _stems(names)}
_SAME_AS = {
    _stem(word): _stem(other)
    for word, other in (("tire", "tyre"), ("puncture", "tyre"), ("bike", "bicycle"), ("fix", "repair"))
}
_IDIOMS = tuple(
    (re.compile(rf"\b({pattern})\b"), word)
    for pattern, word in (
        ("(very|so) much|muchas|muchisimas", ""),
        ("good (morning|afternoon|evening|day)", "hello"),
        ("buen[oa]s? (dias?|tardes|noches)", "hola"),
        ("how are you|como esta usted", "hello"),
        ("how (long|much time|many days)|cuanto (tiempo|tarda)|cuantos dias", "takes"),
        ("(get|come) (there|to you)|como llego", "address"),
        ("weekends?|fin(es)? de semana", "saturday sunday"),
        ("(who|what) are you|what do you do|quien(es)? (es|eres|son)|que (hacen|son)", "selfdescription"),
    )
)
_IS_A = re.compile(r"^(\w+ ){1,6}?(is an?|are an?|es una?|somos una?) ")

_GOODBYE = frozenset("bye goodbye adios".split())
_THANKS = frozenset("thanks thank gracias".split())
_GREETING = frozenset("hello hi hey hola".split())
_YES = frozenset("yes yeah yep sure si claro".split())
_NO = frozenset("no nope nothing all nada todo".split())
_FINE = frozenset("okay ok great fine perfect right good bueno vale perfecto".split())
_SMALL_TALK = _GOODBYE | _THANKS | _GREETING | _YES | _NO | _FINE
_STOP = _stems(" ".join(_SMALL_TALK)) | _stems(
    "a an the of and or in on at for with how what which who is are am was be do does did you your my me it its i we "
    "us our can could would will to from by as that thats this there here have has like want need know tell say about "
    "come go so well if get got any some please not very lot else more just also help again repeat pardon today now "
    "el la los las un una de del que y o en por para con como es son esta estan su sus mi se lo al me te nos les le "
    "hay tiene tienen puedo puede quiero cual muy pero favor mas algo eso usted otra vez repite repetir ayuda hoy "
    "day days dia dias"
)
_AGAIN = re.compile(r"\b(again|repeat|pardon|repite|repetir|repita|otra vez)\b")
_FOLLOW_UP = re.compile(r"^(and|what about|how about|y|que tal)\b|\b(it|that|this|one|eso|esto)\b")
_INSTRUCTION = re.compile(
    r"(you|your|keep|always|never|answer|do not|don't|please|be|speak|reply|respond|use|detect|greet|ask|offer|tell|"
    r"say|avoid|try|help|act|limit|if (you|the|a|they)|the (caller|user|customer)s? (may|can|might)|"
    r"eres|usted es|tu|debes|debe|responde|responda|contesta|conteste|mant[eé]n|mantenga|habla|hable|usa|use|saluda|"
    r"salude|detecta|detecte|ayuda|ayude|siempre|nunca|no|si|quien llama puede)\b",
    re.IGNORECASE,
)
_MARKER = re.compile(r"\b(facts|datos|hechos)\s*:", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<!\b(?:St|Dr|Mr)\.)(?<=[.!?])\s+(?=[A-ZÁÉÍÓÚÑ¿¡\"\d])|\n+")

MIN_SCORE = 0.5
CLOSE_WORD = 0.84
"""Similarity at which a word that speech-to-text garbled still counts."""
EARLIER = 0.5
"""Weight of what the caller spoke of before, where the question refers to it."""
OTHER_TOPIC = 0.3
"""Taken off for a topic that was asked for and is not the sentence's, which only shares other words."""

_PHRASES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "greet": "Hello! How can I help you?",
        "bye": "Thank you for calling, goodbye.",
        "welcome": "You are welcome.",
        "else": "Is there anything else?",
        "yes": "What would you like to know?",
        "offer": "I can tell you about {topics}. What would you like to know?",
        "unknown": "I am sorry, I do not know that. I can tell you about {topics}.",
        "nothing": "I am sorry, I did not catch that.",
        "said": "You said: {said}",
        "no_facts": "I am the built-in offline assistant, and I was told no facts. "
        "With an OpenAI API key a real model would answer you.",
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
        "bye": "Gracias por llamar, adiós.",
        "welcome": "De nada.",
        "else": "¿Desea algo más?",
        "yes": "¿Qué le gustaría saber?",
        "offer": "Puedo informarle sobre {topics}. ¿Qué le gustaría saber?",
        "unknown": "Lo siento, no lo sé. Puedo informarle sobre {topics}.",
        "nothing": "Lo siento, no le he entendido.",
        "said": "Usted dijo: {said}",
        "no_facts": "Soy el asistente incorporado sin conexión y no me han dado datos. "
        "Con una clave de API de OpenAI le respondería un modelo de verdad.",
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
    sentences = (sentence.strip(" \t\r-*•") for sentence in _SENTENCE_END.split(body))
    return [
        Fact(sentence, frozenset(_statement_terms(sentence)), language_of(sentence))
        for sentence in sentences
        if words(sentence) and (marker or not _INSTRUCTION.match(sentence))
    ]


def answer(messages: Sequence[tuple[str, str]]) -> str:
    """Continue a conversation of (role, content) pairs: the reply to the last user message."""
    facts = facts_of("\n".join(text for role, text in messages if role in ("system", "developer")))
    said = [text.strip() for role, text in messages if role == "user"]
    replies = [text for role, text in messages if role == "assistant" and text.strip()]
    language = "en"
    for text in said:  # a short "No." is in the language spoken so far
        language = language_of(text, in_doubt=language)
    phrases = _PHRASES[language]
    if not said:
        return phrases["greet"]
    found = set(words(_plain(said[-1])))
    if not found:
        return phrases["nothing"]
    if replies and _AGAIN.search(_plain(said[-1])):
        return replies[-1]
    terms = _question_terms(said[-1])
    in_language = [fact for fact in facts if fact.language == language]
    best = _best(in_language or facts, terms, _earlier_terms(said, terms))
    return best or _small_talk(found, terms, facts, phrases) or _cannot(said[-1], terms, facts, phrases)


def _small_talk(
    found: set[str], terms: set[str], facts: Sequence[Fact], phrases: Mapping[str, str]
) -> str | None:
    if found & _GOODBYE or (not terms and found & _NO):
        return f"{phrases['welcome']} {phrases['bye']}" if found & _THANKS else phrases["bye"]
    if found & _THANKS:
        return f"{phrases['welcome']} {phrases['else']}"
    if terms:
        return None
    if found & _GREETING:
        return phrases["greet"] if facts else f"{phrases['greet'].split('!')[0]}! {phrases['no_facts']}"
    if found & _YES:
        return phrases["yes"]
    return phrases["else"] if found <= _FINE else None


def _cannot(text: str, terms: set[str], facts: Sequence[Fact], phrases: Mapping[str, str]) -> str:
    if not facts:
        said = text if text[-1:] in ".!?" else text + "."
        return f"{phrases['said'].format(said=said)} {phrases['no_facts']}"
    known = {term[1:] for fact in facts for term in fact.terms if term.startswith("#")}
    topics = [phrases[topic] for topic in _TOPICS if topic in known and topic in phrases] or [phrases["rest"]]
    head, last = topics[:-1], topics[-1]
    listed = ", ".join(head) + phrases["and"] + last if head else last
    return phrases["unknown" if terms else "offer"].format(topics=listed)


# --- terms: topics (#hours), days (@0 is Monday), and stems of the other words ------------------------


def _plain(text: str) -> str:
    plain = " ".join(words(text))
    for pattern, word in _IDIOMS:
        plain = pattern.sub(word, plain)
    return plain


def _statement_terms(sentence: str) -> set[str]:
    plain = " ".join(words(sentence))
    own = {"selfdescription"} if _IS_A.match(plain) else set()
    return _terms(plain.split(), _TOPIC_OF) | own


def _question_terms(text: str) -> set[str]:
    return _terms(_plain(text).split(), _TOPIC_ASKED)


def _terms(found: Sequence[str], topic_of: Mapping[str, str]) -> set[str]:
    stems = [_stem(word) for word in found]
    terms = {"#" + topic_of[stem] for stem in stems if stem in topic_of}
    terms |= {f"@{_DAY_OF[stem]}" for stem in stems if stem in _DAY_OF}
    for first, between, last in zip(stems, found[1:], stems[2:], strict=False):
        if between in ("to", "through", "a") and first in _DAY_OF and last in _DAY_OF:
            terms |= {f"@{number}" for number in range(_DAY_OF[first], _DAY_OF[last] + 1)}
    plain = {stem for stem in stems if stem not in topic_of and stem not in _DAY_OF and stem not in _STOP}
    return terms | {_SAME_AS.get(stem, stem) for stem in plain}


def _earlier_terms(said: Sequence[str], terms: set[str]) -> dict[str, float]:
    """What "and on Sunday?" refers to: weighted terms of the questions before it, back to a complete one."""
    earlier: dict[str, float] = {}
    weight = 1.0
    follows = bool(_FOLLOW_UP.search(_plain(said[-1]))) or not any(term.startswith("#") for term in terms)
    for text in reversed(said[:-1]):
        if not follows:
            break
        weight *= EARLIER
        earlier = dict.fromkeys(_question_terms(text) - terms, weight) | earlier
        follows = bool(_FOLLOW_UP.search(_plain(text)))
    return {term: weight for term, weight in earlier.items() if not term.startswith("@")}


# --- the search --------------------------------------------------------------------------------------


def _best(facts: Sequence[Fact], terms: set[str], earlier: Mapping[str, float]) -> str | None:
    """The fact that fits, two if they fit alike; None if none does."""
    scores = []
    for fact in facts:
        score = sum(_match(term, fact, facts) for term in terms)
        if score:
            score += sum(weight * _match(term, fact, facts) for term, weight in earlier.items())
        score -= OTHER_TOPIC * sum(term.startswith("#") and term not in fact.terms for term in terms)
        scores.append(score)
    top = max(scores, default=0.0)
    if top < MIN_SCORE:
        return None
    alike = [fact.text for fact, score in zip(facts, scores, strict=True) if math.isclose(score, top)]
    return " ".join(alike[:2])


def _match(term: str, fact: Fact, facts: Sequence[Fact]) -> float:
    """A rare term weighs more (idf); a word that is nearly the fact's counts for most of it."""
    likeness = 1.0
    if term not in fact.terms:
        close = difflib.get_close_matches(term, fact.terms, 1, CLOSE_WORD) if len(term) >= 4 else []
        if not close or term[0] in "#@":
            return 0.0
        term, likeness = close[0], 0.7
    return likeness * math.log(1 + len(facts) / sum(term in fact.terms for fact in facts))
