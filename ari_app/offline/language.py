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
    "the a an of and in on at for with how what where when is are do does you your my me it i we can could to much "
    "hello hi thanks thank please good morning bye goodbye yes not this that open close cost have would like".split()
)


def words(text: str) -> list[str]:
    """Lower-case words without accents."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.findall(r"[a-z0-9]+", plain)


def language_of(text: str) -> str:
    """`es` or `en`; English when in doubt."""
    found = words(text)
    spanish = sum(word in _SPANISH for word in found) + 2 * len(re.findall(r"[¿¡ñ]", text))
    return "es" if spanish > sum(word in _ENGLISH for word in found) else "en"
