"""What the application says itself, when the engines can't or nobody else would. Core, data only."""

from __future__ import annotations

from collections.abc import Mapping

PHRASES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "apology": "I am sorry, I am having trouble right now. Please say that again.",
        "regret": "I am sorry, I can't go on with this call right now.",
        "hold": "One moment, please.",
        "idle": "Are you still there?",
        "parting": "I can't hear you any more, so I will hang up now. Goodbye.",
        "warning": "Our call will end in half a minute.",
        "limit": "Our time is up, I have to end the call now. Goodbye.",
        "goodbye": "I am sorry, I have to hang up now. Goodbye.",
    },
    "es": {
        "apology": "Lo siento, ahora mismo tengo un problema. Repítalo, por favor.",
        "regret": "Lo siento, en este momento no puedo continuar con la llamada.",
        "hold": "Un momento, por favor.",
        "idle": "¿Sigue usted ahí?",
        "parting": "Ya no le oigo, así que voy a colgar. Adiós.",
        "warning": "La llamada terminará dentro de medio minuto.",
        "limit": "Se nos acabó el tiempo, tengo que terminar la llamada. Adiós.",
        "goodbye": "Lo siento, tengo que colgar ahora. Adiós.",
    },
    "de": {
        "apology": "Entschuldigung, ich habe gerade Schwierigkeiten. Bitte sagen Sie das noch einmal.",
        "regret": "Es tut mir leid, ich kann das Gespräch gerade nicht weiterführen.",
        "hold": "Einen Moment, bitte.",
        "idle": "Sind Sie noch da?",
        "parting": "Ich höre Sie nicht mehr und lege jetzt auf. Auf Wiederhören.",
        "warning": "Unser Gespräch endet in einer halben Minute.",
        "limit": "Unsere Zeit ist um, ich muss das Gespräch beenden. Auf Wiederhören.",
        "goodbye": "Es tut mir leid, ich muss jetzt auflegen. Auf Wiederhören.",
    },
    "fr": {
        "apology": "Je suis désolé, j'ai un problème en ce moment. Pouvez-vous répéter, s'il vous plaît ?",
        "regret": "Je suis désolé, je ne peux pas poursuivre cet appel pour le moment.",
        "hold": "Un instant, s'il vous plaît.",
        "idle": "Êtes-vous toujours là ?",
        "parting": "Je ne vous entends plus, je vais donc raccrocher. Au revoir.",
        "warning": "Notre appel se terminera dans une demi-minute.",
        "limit": "Notre temps est écoulé, je dois mettre fin à l'appel. Au revoir.",
        "goodbye": "Je suis désolé, je dois raccrocher maintenant. Au revoir.",
    },
    "it": {
        "apology": "Mi dispiace, in questo momento ho un problema. Può ripetere, per favore?",
        "regret": "Mi dispiace, in questo momento non posso continuare la chiamata.",
        "hold": "Un momento, per favore.",
        "idle": "È ancora lì?",
        "parting": "Non la sento più, quindi riaggancio. Arrivederci.",
        "warning": "La nostra chiamata terminerà fra mezzo minuto.",
        "limit": "Il nostro tempo è finito, devo chiudere la chiamata. Arrivederci.",
        "goodbye": "Mi dispiace, ora devo riagganciare. Arrivederci.",
    },
    "pt": {
        "apology": "Desculpe, estou com um problema neste momento. Repita, por favor.",
        "regret": "Desculpe, neste momento não posso continuar a chamada.",
        "hold": "Um momento, por favor.",
        "idle": "Ainda está aí?",
        "parting": "Já não consigo ouvir, por isso vou desligar. Adeus.",
        "warning": "A nossa chamada termina dentro de meio minuto.",
        "limit": "O nosso tempo acabou, tenho de terminar a chamada. Adeus.",
        "goodbye": "Desculpe, tenho de desligar agora. Adeus.",
    },
    "nl": {
        "apology": "Het spijt me, ik heb even een probleem. Wilt u dat nog eens zeggen?",
        "regret": "Het spijt me, ik kan dit gesprek nu niet voortzetten.",
        "hold": "Een ogenblik, alstublieft.",
        "idle": "Bent u er nog?",
        "parting": "Ik hoor u niet meer en hang nu op. Tot ziens.",
        "warning": "Ons gesprek eindigt over een halve minuut.",
        "limit": "Onze tijd is om, ik moet het gesprek beëindigen. Tot ziens.",
        "goodbye": "Het spijt me, ik moet nu ophangen. Tot ziens.",
    },
}
"""By ISO 639-1 code and purpose:

    apology   an engine failed, and the caller should try again
    regret    the last words before a call is given up
    hold      an answer takes long
    idle      nobody has said anything for long
    parting   ... and nobody answered that either
    warning   half a minute before the longest call ends
    limit     ... and at its end
    goodbye   the server stops
"""
