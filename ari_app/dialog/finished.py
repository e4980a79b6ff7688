"""Whether a caller's words are a finished utterance, or one that will go on after a pause for thought. Core.

A rule of grammar, not a model: it costs nothing, and needs nothing but the words that speech-to-text gives anyway.
What it takes for unfinished only waits as long as it would without it.
"""

from __future__ import annotations

import re

_GO_ON = frozenset(
    # English: articles, conjunctions, prepositions, auxiliaries, subjects, and what people say while they think.
    "a an the this these those my your our his her their its some any every each another other same "
    "and or but because cause so if unless until since although though while as than which whose whether nor "
    "to of for with without in into on onto at from by about between under over near after before during through "
    "per via like regarding concerning around "
    "i i'm i'd i'll i've we we're we'd we'll we've he's she's they're you're there's it's that's "
    "is are was were am be been being do does did don't doesn't didn't can could can't couldn't would should will "
    "won't may might must shall have has had haven't hasn't having let's "
    "want wants need needs wanted needed calling called looking trying going gonna wanna asking wondering got said "
    "um uh er erm hmm well actually basically maybe probably perhaps also just very really quite "
    "bought brought found made took gave told ordered paid sent "
    "mr mrs ms dr number named "
    # Spanish
    "el la los las un una unos unas mi tu su mis tus sus nuestro nuestra y e o u pero porque aunque si cuando que como "
    "de del a al en con sin por para desde hasta sobre entre hacia según es son era soy está están estoy fue ser estar "
    "he ha han había hay tengo tiene quiero quisiera necesito puedo puede podría voy va muy más eh este pues entonces "
    # German
    "der die das den dem des ein eine einen einem einer mein meine meinen ihr ihre kein keine und oder aber weil dass "
    "wenn ob als wie denn für mit ohne von vom zu zum zur im ins am an auf aus bei beim nach vor über unter "
    "zwischen ich wir ist sind war bin habe haben hat hätte möchte würde könnte kann will muss soll ähm äh also".split()
)
_VERBS = frozenset(
    "am are is was were be been do does did have has had can could will would shall should may might must "
    "ask asked book bought break broke bring brought buy call called came cancel change come cost costs find forget "
    "found get give go goes going got happen hear help hope hurt keep knew know leave let like listen live lost "
    "love made make mean means meet move need needs open order paid pay play put ran read remember repair run said "
    "saw say see seems send sent set sounds speak spell spoke start stop stopped take talk tell thank thanks think "
    "thought told took tried try understand use wait walk want wants went work works write wrote".split()
)
_WHOLE_ALONE = frozenset(
    "yes yeah yep no nope ok okay sure please thanks hello hi hey goodbye bye right correct exactly great fine good "
    "perfect nothing everything sorry pardon what where when why who how".split()
)
_ENGLISH = frozenset("the a an my your our his her their i you we it on in at of for and with".split())
_OPENERS = frozenset(
    "if when whenever because since although though while after before until unless as "
    "si cuando porque aunque mientras wenn weil obwohl nachdem bevor falls".split()
)
_ASKS_FOR_MORE = re.compile(
    r"^(?:(?:yes|yeah|hi|hello|hey|okay|ok|so|well|and|please),? )*"
    r"(?:(?:i|we)(?:'d| would)? (?:like|want|need|love|wish|have)(?: to \w+)?"
    r"|(?:can|could|would) (?:you|i)(?: please)? (?:tell|give|send|show|get|have)(?: me| us| you)?"
    r"|(?:can|could|would|will) (?:you|i|we)(?: please)?)$"
)
"""I would like to book — what? Can you tell me — what?"""
_DIGITS_WANTED = re.compile(
    r"number|phone|code|account|order|reference|nummer|número|teléfono|card|zip|postal|id\b"
)
ENOUGH_DIGITS = 7
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def is_finished(text: str, *, after_question: bool = False) -> bool:
    """True when nothing about the words promises more.

    Args:
        after_question: the bot asked, so that "On Tuesday" may be all.
        text: a transcript with the punctuation that the engine gave it. Engines end every piece with a full stop, so
            one proves nothing; a piece in capitals without any was left open by an engine that knows how to close.
    """
    text = text.strip()
    words = [word.lower().replace("’", "'") for word in _WORD.findall(text)]
    if not words or text.endswith(("...", "…", ",", "-", "–", "—", ":", ";")):
        return False
    if words[-1] in _GO_ON:
        return False
    closed = text.endswith((".", "?", "!", "。", "？"))
    if not closed and text[:1].isupper():
        return False
    if _ASKS_FOR_MORE.match(" ".join(words)):
        return False
    if text.endswith("?"):
        return True
    digits = sum(character.isdigit() for character in text)
    if words[-1][-1].isdigit() and digits < ENOUGH_DIGITS and _DIGITS_WANTED.search(text.lower()):
        return False
    if words[0] in _OPENERS and "," not in text:
        return False
    return after_question or not _is_fragment(words)


def _is_fragment(words: list[str]) -> bool:
    """English without a verb, which is no sentence by itself."""
    verb = any(word in _VERBS or word.endswith("ed") or "'" in word for word in words)
    return not verb and bool(_ENGLISH.intersection(words)) and not _WHOLE_ALONE & {words[0], words[-1]}
