"""The offline chat by table: every reply is a sentence of the system message, or says that there is none."""

from __future__ import annotations

import pytest

from ari_app.offline.answerer import answer, facts_of
from ari_app.settings import DEFAULT_SYSTEM_MESSAGE

WEEKDAYS = "We are open Monday to Friday from nine in the morning to six in the evening."
WEEKEND = "On Saturday we are open from ten to two, and on Sunday we are closed."
SERVICE = "A basic service costs sixty euros and takes two days."
TYRE = "A flat tyre is fixed while you wait for fifteen euros."
PLACE = "The shop is at twelve Harbour Street, opposite the ferry terminal."
BOOK = "To book a repair, leave your name and a good time to call you back."
WHO = "Harbour Cycles is a bicycle repair shop."
ENGLISH = "You are the phone assistant of Harbour Cycles. Keep answers short. Facts: " + " ".join(
    (WHO, WEEKDAYS, WEEKEND, SERVICE, TYRE, PLACE, BOOK)
)

SEMANA = "Abrimos de lunes a viernes de nueve de la mañana a seis de la tarde."
SABADO = "Los sábados abrimos de diez a dos y los domingos estamos cerrados."
REVISION = "Una revisión básica cuesta sesenta euros y tarda dos días."
PINCHAZO = "Reparamos un pinchazo mientras espera por quince euros."
LUGAR = "El taller está en la calle del Puerto número doce, frente a la terminal."
RESERVA = "Para reservar una reparación, deje su nombre y una buena hora para llamarle."
QUIEN = "Bicicletas del Puerto es un taller de bicicletas."
SPANISH = "Eres el asistente de un taller. Datos:\n" + "\n".join(
    (QUIEN, SEMANA, SABADO, REVISION, PINCHAZO, LUGAR, RESERVA)
)
BOTH = ENGLISH + "\n" + SPANISH.partition("Datos:")[2]

DO_NOT_KNOW = (
    "I am sorry, I do not know that. "
    "I can tell you about our opening hours, our prices, where we are and how to book."
)
NO_SE = (
    "Lo siento, no lo sé. "
    "Puedo informarle sobre nuestro horario, nuestros precios, dónde estamos y cómo reservar."
)


def ask(system: str, *questions: str) -> list[str]:
    """The replies to the questions of one conversation."""
    messages = [("system", system)]
    for question in questions:
        messages.append(("user", question))
        messages.append(("assistant", answer(messages)))
    return [text for role, text in messages if role == "assistant"]


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("Hello, what time do you open on Saturday?", WEEKEND),
        ("And how much does a basic service cost?", SERVICE),
        ("Where is your shop?", PLACE),
        ("Great, thank you very much. Goodbye.", "You are welcome. Thank you for calling, goodbye."),
        ("Are you open on Wednesday?", WEEKDAYS),
        ("Are you open on weekends?", WEEKEND),
        ("What are your opening hours?", f"{WEEKDAYS} {WEEKEND}"),
        ("When do you close?", f"{WEEKDAYS} {WEEKEND}"),
        ("Are you open on Christmas day?", f"{WEEKDAYS} {WEEKEND}"),
        ("How many days does a service take?", SERVICE),
        ("What's the price of a service?", SERVICE),
        ("How long does a service take?", SERVICE),
        ("How much is a flat tire?", TYRE),
        ("I have a puncture.", TYRE),
        ("What is your address?", PLACE),
        ("How do I get there?", PLACE),
        ("Good morning, where are you located?", PLACE),
        ("I'd like to make an appointment.", BOOK),
        ("I would like to book a repair for my bicycle.", BOOK),
        ("Could you call me back?", BOOK),
        ("Who are you?", WHO),
        ("What do you do?", WHO),
        ("Do you have parking?", DO_NOT_KNOW),
        ("Do you sell pizza?", DO_NOT_KNOW),
        ("Can I come by this afternoon?", DO_NOT_KNOW),
        ("Tell me a joke.", DO_NOT_KNOW),
        ("Hello.", "Hello! How can I help you?"),
        ("Good evening!", "Hello! How can I help you?"),
        ("Yes.", "What would you like to know?"),
        ("Okay.", "Is there anything else?"),
        ("Thanks a lot.", "You are welcome. Is there anything else?"),
        ("No, that's all.", "Thank you for calling, goodbye."),
        ("No, thanks.", "You are welcome. Thank you for calling, goodbye."),
        ("...", "I am sorry, I did not catch that."),
        ("你好", "I am sorry, I did not catch that."),
        (
            "What can you help me with?",
            "I can tell you about our opening hours, our prices, where we are and how to book. "
            "What would you like to know?",
        ),
    ],
)
def test_english(question: str, reply: str) -> None:
    assert ask(BOTH, question) == [reply]


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("Hola, ¿a qué hora abren el sábado?", SABADO),
        ("a que hora abre el sabado", SABADO),
        ("¿Abren los domingos?", SABADO),
        ("¿Están abiertos el miércoles?", SEMANA),
        ("¿Qué horario tienen?", f"{SEMANA} {SABADO}"),
        ("Buenos días, ¿cuánto cuesta una revisión básica?", REVISION),
        ("¿Cuánto tarda una revisión?", REVISION),
        ("¿Cuánto vale arreglar un pinchazo?", PINCHAZO),
        ("¿Dónde están?", LUGAR),
        ("Quiero reservar una cita.", RESERVA),
        ("¿Quién es usted?", QUIEN),
        ("¿Tienen aparcamiento?", NO_SE),
        ("Hola.", "¡Hola! ¿En qué puedo ayudarle?"),
        ("Buenas tardes.", "¡Hola! ¿En qué puedo ayudarle?"),
        ("Sí, claro.", "¿Qué le gustaría saber?"),
        ("Muchas gracias, adiós.", "De nada. Gracias por llamar, adiós."),
        ("Gracias.", "De nada. ¿Desea algo más?"),
    ],
)
def test_spanish(question: str, reply: str) -> None:
    assert ask(BOTH, question) == [reply]


@pytest.mark.parametrize(
    ("garbled", "reply"),
    [
        ("what town do you open on saturday", WEEKEND),
        ("How much does the basis service cost", SERVICE),
        ("How much for a basik servis", SERVICE),
        ("Can you fix this flap tire today?", TYRE),
        ("where's your shock", PLACE),
        ("Great thank you very match goodbye", "You are welcome. Thank you for calling, goodbye."),
        ("Cuanto questa una rebisión basica", REVISION),
    ],
)
def test_what_speech_to_text_garbles_is_still_understood(garbled: str, reply: str) -> None:
    assert ask(BOTH, garbled) == [reply]


@pytest.mark.parametrize(
    ("questions", "last"),
    [
        (("What time do you open on Saturday?", "And on Monday?"), WEEKDAYS),
        (("How much does a basic service cost?", "And a flat tyre?", "How long does it take?"), TYRE),
        (("Do you fix a flat tyre?", "How much is it?"), TYRE),
        (("How much is a service?", "And how long does it take?"), SERVICE),
        (("Where are you?", "Can you say that again?"), PLACE),
        (("¿Dónde están?", "¿Puede repetir?"), LUGAR),
        (("¿Abren el sábado?", "¿Y el lunes?"), SEMANA),
        (("¿Abren el sábado?", "No."), "Gracias por llamar, adiós."),
        (("Where are you?", "No."), "Thank you for calling, goodbye."),
    ],
)
def test_a_short_question_continues_the_subject_and_the_language(
    questions: tuple[str, ...], last: str
) -> None:
    assert ask(BOTH, *questions)[-1] == last


def test_facts_in_the_other_language_are_better_than_none() -> None:
    assert ask(ENGLISH, "Hola, ¿a qué hora abren el sábado?") == [WEEKEND]
    assert ask(SPANISH, "Where is your shop?") == [LUGAR]


def test_instructions_are_not_facts() -> None:
    message = (
        "You are Anna, a friendly receptionist. Keep answers short. Never give medical advice. "
        "If you do not know something, say so. The caller may speak Spanish. "
        "Dr. Lee is a dentist in Baker Street. Don't mention prices.\n- A check-up costs 40 euros.\n"
    )
    assert [fact.text for fact in facts_of(message)] == [
        "Dr. Lee is a dentist in Baker Street.",
        "A check-up costs 40 euros.",
    ]


def test_after_the_marker_all_sentences_are_facts() -> None:
    assert [fact.text for fact in facts_of("You are a bot. FACTS: Always fresh fish. No cards.")] == [
        "Always fresh fish.",
        "No cards.",
    ]


def test_without_facts_it_says_what_it_is() -> None:
    """The default system message only instructs."""
    assert facts_of(DEFAULT_SYSTEM_MESSAGE) == []
    hello, question, bye = ask(DEFAULT_SYSTEM_MESSAGE, "Hello.", "What is the capital of France?", "Bye.")
    about = (
        "I am the built-in offline assistant, and I was told no facts. "
        "With an OpenAI API key a real model would answer you."
    )
    assert hello == f"Hello! {about}"
    assert question == f"You said: What is the capital of France? {about}"
    assert bye == "Thank you for calling, goodbye."
    assert "clave de API" in ask(DEFAULT_SYSTEM_MESSAGE, "¿Quién eres?")[0]


def test_no_user_message_gets_a_greeting() -> None:
    assert answer([("system", ENGLISH)]) == "Hello! How can I help you?"


def test_a_message_of_facts_without_topics_names_what_it_is_about_generally() -> None:
    assert ask("Facts: Bob has a dog.", "Do you sell pizza?") == [
        "I am sorry, I do not know that. I can tell you about what we do."
    ]
