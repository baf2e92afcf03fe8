"""The words the demo corpus is made of: cues of each emotion, cues that families share, and plain clauses."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CLOSERS", "CUES", "DID", "FAMILIES", "OPENERS", "SHARED", "TOPICS", "WHO"]


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("/"))


CUES: Mapping[str, tuple[str, ...]] = {
    label: _phrases(text)
    for label, text in {
        "admiration": "that was brilliant / what a talent / truly impressive work / such a gifted player / masterful",
        "amusement": "haha that got me / this is hilarious / I laughed so hard / lol what a joke / funniest thing ever",
        "anger": "I am furious / how dare they / this makes me so mad / I hate them for this / damn these people",
        "annoyance": "so annoying / this again, ugh / it gets on my nerves / stop bothering us / how tiresome",
        "approval": "I agree with this / good point / that is fair enough / exactly right / sounds reasonable",
        "caring": "take care of yourself / I am here for you / be safe out there / hope you feel better / stay strong",
        "confusion": "I don't understand / that makes no sense to me / I am lost here / huh, what / not sure I follow",
        "curiosity": "how does that work / I wonder why / can you tell me more / what was it like / is it any good",
        "desire": "I want one so badly / if only I had that / I crave it / wish I could have it / I need this now",
        "disappointment": "what a let down / I expected better / it fell short / such a waste / hopes were too high",
        "disapproval": "I disagree / that is not okay / this is a bad idea / they should not do it / wrong, so wrong",
        "disgust": "that is gross / it makes me sick / ew, nasty / what a vile smell / revolting, really",
        "embarrassment": "I blushed so hard / so awkward for me / I wanted to hide / cringe / my face went red",
        "excitement": "I can't wait / so hyped / woohoo, finally / this will be epic / counting the days",
        "fear": "I am terrified / it scares me to death / I was frightened / that is horrifying / so scary at night",
        "gratitude": "thank you so much / thanks a lot / I appreciate it / I owe you one / so grateful for that",
        "grief": "rest in peace / we lost her / I still mourn him / the funeral is tomorrow / gone too soon",
        "joy": "I am so happy / what a wonderful day / this made me smile / pure delight / feeling cheerful",
        "love": "I love this / I adore them / my favourite person / all my heart / head over heels",
        "nervousness": "I am so anxious / my hands are shaking / I worry about it / on edge all day / butterflies",
        "optimism": "it will get better / I hope it works out / things look up / next time for sure / fingers crossed",
        "pride": "I am proud of us / we earned this / look what I built / proud moment / I did it all by myself",
        "realization": "now I get it / it just hit me / oh, that explains it / I never noticed / turns out I was wrong",
        "relief": "phew, that was close / what a relief / finally over / I can breathe again / glad it is done",
        "remorse": "I am sorry / my fault entirely / I regret it / I apologise / I should never have said that",
        "sadness": "I feel so sad / this breaks my heart / I cried all night / so lonely now / it hurts",
        "surprise": "wow, I did not see that coming / what a shock / no way / unbelievable / I was stunned",
    }.items()
}

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "hostile": ("anger", "annoyance", "disapproval", "disgust"),
    "warm": ("admiration", "approval", "caring", "gratitude", "love", "pride"),
    "lively": ("amusement", "desire", "excitement", "joy", "optimism", "relief"),
    "low": ("disappointment", "embarrassment", "grief", "remorse", "sadness"),
    "uneasy": ("confusion", "fear", "nervousness"),
    "puzzled": ("confusion", "curiosity", "realization", "surprise"),
}
"""Emotions that are easily confused; one of them may be in two families."""

SHARED: Mapping[str, tuple[str, ...]] = {
    family: _phrases(text)
    for family, text in {
        "hostile": "this is terrible / I can't stand it / enough already / these people / what is wrong with them",
        "warm": "you are the best / well done / that is lovely / so good of you / what a great person",
        "lively": "yes, yes, yes / best day ever / that is great news / so good / let's go",
        "low": "this is awful / I feel bad / what a shame / it is all ruined / not a good day",
        "uneasy": "I don't like this feeling / something is off / oh no / I have a bad feeling / please, not that",
        "puzzled": "wait, really / oh / hmm, interesting / is that so / I never knew",
    }.items()
}

WHO = _phrases(
    "my neighbour / the coach / our teacher / [NAME] / my cousin / the driver / this guy / the new clerk / her brother "
    "/ [NAME] and I / the committee / some tourists / the band / his boss / everyone here / the shop / my old friend / "
    "two players / the council / that channel / the [RELIGION] choir / a colleague"
)
DID = _phrases(
    "talked about / brought up / sent a note on / looked at / posted about / asked around about / came back to / "
    "mentioned / made a list for / took pictures of / read the page on / will decide on / had a say in / wrote down"
)
TOPICS = _phrases(
    "the late train / the last match / a used bicycle / the blue house / the rules of the club / the season finale / "
    "the garden fence / an old map / the school play / the second goal / the morning shift / a bowl of soup / the "
    "update / the long queue / the town hall / a pair of boots / the river path / the spare key / the phone bill / the "
    "radio show / the winter sale / the broken lamp / the night bus / a birthday cake / the rental car / the film "
    "trailer / the exam results / the dog next door / the weather report / the trip north / the book fair / the ticket "
    "price / the kitchen sink / the photo album / the new manager / the bridge works / the piano lesson / the big "
    "parcel / the draft pick / the empty stadium"
)
OPENERS = ("", "", "", "", "", "well, ", "so, ", "honestly, ", "okay, ", "look, ", "today ", "to be clear, ")
CLOSERS = (".", ".", ".", "", "", "!", "...", " today.", " this week.", " 😊", " 🙃", ", you know.", " again.")
