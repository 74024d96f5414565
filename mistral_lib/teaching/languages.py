"""One sentence in thirteen languages, and how Mistral 7B's vocabulary cuts it (used by chapter 2).

The vocabulary comes with the package mistral-common, which the book does not require. What it makes
of the sentences is therefore kept in a record, which this writes anew:

    python -m mistral_lib.teaching.languages
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from mistral_lib.tokenizer import MistralTokenizer

RECORD = Path(__file__).parent / "records" / "languages.json"

SENTENCES = {
    "English": "The train leaves in ten minutes, and I still have no ticket.",
    "Chinese": "火车十分钟后开，我还没有票。",
    "French": "Le train part dans dix minutes, et je n'ai toujours pas de billet.",
    "Spanish": "El tren sale en diez minutos y todavía no tengo billete.",
    "German": "Der Zug fährt in zehn Minuten, und ich habe noch keine Fahrkarte.",
    "Japanese": "あと十分で電車が出るのに、まだ切符を持っていない。",
    "Russian": "Поезд отправляется через десять минут, а у меня всё ещё нет билета.",
    "Finnish": "Juna lähtee kymmenen minuutin kuluttua, eikä minulla ole vielä lippua.",
    "Korean": "기차는 십 분 뒤에 떠나는데 나는 아직 표가 없다.",
    "Thai": "รถไฟจะออกในอีกสิบนาที และฉันยังไม่มีตั๋ว",
    "Arabic": "يغادر القطار بعد عشر دقائق وما زلت بلا تذكرة.",
    "Greek": "Το τρένο φεύγει σε δέκα λεπτά και δεν έχω ακόμα εισιτήριο.",
    "Hindi": "ट्रेन दस मिनट में चलेगी और मेरे पास अभी तक टिकट नहीं है।",
}


def mistral_vocabulary() -> MistralTokenizer | None:
    """The vocabulary of Mistral 7B 0.1, or `None` where mistral-common is not installed.

    >>> tokenizer = mistral_vocabulary()
    >>> tokenizer is None or tokenizer.vocabulary_size() == 32_000
    True
    """
    package = importlib.util.find_spec("mistral_common")
    if package is None or package.submodule_search_locations is None:
        return None
    folder = Path(package.submodule_search_locations[0])
    return MistralTokenizer(folder / "data" / "tokenizer.model.v1")


def cut(tokenizer: MistralTokenizer) -> dict[str, list[str]]:
    """The pieces into which a vocabulary cuts each of the sentences, by language."""
    rows = zip(SENTENCES, tokenizer.encode(list(SENTENCES.values()), add_bos=False, add_eos=False))
    return {language: [tokenizer.id_to_token(id) for id in ids] for language, ids in rows}


def recorded_pieces() -> dict[str, list[str]]:
    """What Mistral 7B's vocabulary makes of the sentences, from the record.

    >>> recorded_pieces()["English"][:3]
    ['▁The', '▁train', '▁leaves']
    """
    return json.loads(RECORD.read_text(encoding="utf-8"))


def main() -> None:
    """Writes the record."""
    tokenizer = mistral_vocabulary()
    if tokenizer is None:
        raise SystemExit("Install mistral-common: it brings the vocabulary of Mistral 7B.")
    text = json.dumps(cut(tokenizer), ensure_ascii=False, indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
