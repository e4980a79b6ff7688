"""English or Spanish? By function words and letters; enough to pick a voice and a phrase. Core."""

from __future__ import annotations

import re
import unicodedata

_SPANISH = frozenset(
    "el la los las un una de del que y en por para con como cuanto cuesta donde cuando es esta estan son hola "
    "gracias buenos buenas dias tardes noches adios si usted su mi me se lo al abren abre cierran hora horas tiene "
    "tienen puedo quiero favor cual hay nos vale calle lunes martes miercoles jueves viernes sabado domingo".split()
)
_ENGLISH = frozenset(
    "the a an of and in on at for with how what where when is are do does did you your my it i we can could to much "
    "hello hi thanks thank please good morning bye goodbye yes yeah not this that open close cost have would "
    "like".split()
)


def words(text: str) -> list[str]:
    """Lower-case words without accents and apostrophes."""
    plain = unicodedata.normalize("NFKD", re.sub("['’]", "", text.lower()))
    return re.findall(r"[a-z0-9]+", plain.encode("ascii", "ignore").decode())


def language_of(text: str, in_doubt: str = "en") -> str:
    """`es` or `en`; `in_doubt` where nothing tells, as in "No."."""
    found = words(text)
    spanish = sum(word in _SPANISH for word in found) + 2 * len(re.findall(r"[¿¡ñ]", text))
    english = sum(word in _ENGLISH for word in found)
    if spanish == english:
        return in_doubt
    return "es" if spanish > english else "en"
