"""Twelve texts of each of eleven kinds, and Mistral's vocabularies on them (used by chapter 2).

The texts were written for this book, before anything was measured on them. The vocabularies come
with the package mistral-common, which the book does not require. What they make of the texts is
therefore kept in a record, which this writes anew:

    python -m mistral_lib.teaching.kinds_of_text
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

from mistral_lib.presets.tokenizer_json import WRONG_PATTERN
from mistral_lib.tekken import MistralTekkenTokenizer
from mistral_lib.tekken_vocabulary import TekkenVocabulary
from mistral_lib.tokenizer import MistralTokenizer

RECORD = Path(__file__).parent / "records" / "kinds_of_text.json"
SMALL = 32_000  # ids of Mistral 7B's vocabulary

TEXTS = {
    "English": (
        "The library closes at nine, but the reading room stays open all night.",
        "We planted three apple trees last autumn; only one of them survived the frost.",
        "Nobody had told her that the meeting was moved to Thursday.",
        "Most rivers in this valley run dry before the end of August.",
        "If the oven is too hot, the crust burns while the middle stays raw.",
        "He couldn't remember whether he'd locked the door or not.",
        "The second edition corrects a few mistakes and adds a chapter on birds.",
        "Prices rose again in March, although fewer people bought anything.",
        '"Take the stairs," she said. "The lift hasn\'t worked since Monday."',
        "A good map shows you less than you know and more than you can see.",
        "After the storm, volunteers cleared the road between the two villages.",
        "It's cheaper to repair the roof now than to replace it next year.",
    ),
    "code": (
        "def mean(values):\n    return sum(values) / len(values)\n",
        "for (let i = 0; i < rows.length; i++) {\n  total += rows[i].price;\n}\n",
        "if (!file) {\n    // nothing to close\n    return NULL;\n}\n",
        "SELECT name, COUNT(*) FROM orders WHERE total > 100 GROUP BY name;\n",
        "try:\n    config = json.load(file)\nexcept ValueError:\n    config = {}\n",
        'int main(void) {\n\tprintf("%d\\n", fib(20));\n\treturn 0;\n}\n',
        "fn area(&self) -> f64 {\n    self.width * self.height\n}\n",
        '<ul>\n  <li><a href="/about">About</a></li>\n</ul>\n',
        "x = np.linspace(0, 1, 11)\ny = np.sin(2 * np.pi * x)\nplt.plot(x, y)\n",
        "git checkout -b fix/readme && git commit -am 'Mend the links'\n",
        "const user = await fetch(`/api/users/${id}`).then((r) => r.json());\n",
        "class Stack(list):\n    def peek(self):\n        return self[-1] if self else None\n",
    ),
    "names": (
        "Siobhán O'Sullivan, Cork",
        "Nguyễn Thị Minh Khai",
        "Jean-Baptiste Camille Corot",
        "Olúfúnmiláyọ̀ Ransome-Kuti",
        "Søren Kierkegaard and Regine Olsen",
        "Maria Skłodowska-Curie",
        "Subrahmanyan Chandrasekhar",
        "Llanfairpwllgwyngyll railway station",
        "Wolfgang Amadeus Mozart",
        "Chimamanda Ngozi Adichie",
        "Ólafur Ragnar Grímsson",
        "Gabriel García Márquez",
    ),
    "numbers": (
        "3.14159265358979",
        "2024-07-18 09:30:00",
        "+49 30 901820",
        "1,048,576 bytes",
        "DE89 3704 0044 0532 0130 00",
        "192.168.0.1/24",
        "6.02214076e23",
        "12 + 345 = 357",
        "€ 1.299,00",
        "52.5200° N, 13.4050° E",
        "0x7fff5fbff8a0",
        "1984, 2001, 2049",
    ),
    "emoji": (
        "See you tonight! 🎉🎂",
        "Running late 🏃‍♀️ sorry 😅",
        "👍🏽 looks good to me",
        "❤️❤️❤️",
        "Rain again ☔ so we stay in 🏠",
        "🍕 or 🍜?",
        "Done ✅ next one ➡️",
        "🇫🇷 3 – 1 🇭🇷",
        "That cat 😹😹",
        "Out of office until Monday 🏖️",
        "👩‍👩‍👧 family day at the zoo 🦒",
        "🤷 no idea, ask her",
    ),
    "German": (
        "Die Bibliothek schließt um neun, der Lesesaal bleibt die ganze Nacht geöffnet.",
        "Im Herbst haben wir drei Apfelbäume gepflanzt; nur einer hat den Frost überlebt.",
        "Niemand hatte ihr gesagt, dass die Sitzung auf Donnerstag verschoben wurde.",
        "Die meisten Flüsse in diesem Tal sind vor Ende August ausgetrocknet.",
        "Ist der Ofen zu heiß, verbrennt die Kruste, während die Mitte roh bleibt.",
        "Er wusste nicht mehr, ob er die Tür abgeschlossen hatte.",
        "Die zweite Auflage verbessert einige Fehler und enthält ein Kapitel über Vögel.",
        "Im März stiegen die Preise wieder, obwohl weniger Menschen etwas kauften.",
        "„Nimm die Treppe“, sagte sie. „Der Aufzug geht seit Montag nicht.“",
        "Eine gute Karte zeigt weniger, als man weiß, und mehr, als man sieht.",
        "Nach dem Sturm räumten Freiwillige die Straße zwischen den beiden Dörfern.",
        "Die Krankenversicherungsbeiträge wurden rückwirkend angepasst.",
    ),
    "French": (
        "La bibliothèque ferme à neuf heures, mais la salle de lecture reste ouverte.",
        "L'automne dernier, nous avons planté trois pommiers ; un seul a survécu au gel.",
        "Personne ne lui avait dit que la réunion était reportée à jeudi.",
        "La plupart des rivières de cette vallée sont à sec avant la fin du mois d'août.",
        "Si le four est trop chaud, la croûte brûle et le milieu reste cru.",
        "Il ne se rappelait plus s'il avait fermé la porte à clé.",
        "La deuxième édition corrige quelques erreurs et ajoute un chapitre sur les oiseaux.",
        "Les prix ont encore monté en mars, bien que l'on ait moins acheté.",
        "« Prends l'escalier, dit-elle. L'ascenseur est en panne depuis lundi. »",
        "Une bonne carte montre moins que ce qu'on sait et plus que ce qu'on voit.",
        "Après la tempête, des bénévoles ont dégagé la route entre les deux villages.",
        "Réparer le toit maintenant coûte moins cher que de le remplacer l'an prochain.",
    ),
    "Chinese": (
        "图书馆九点关门，但阅览室整夜开放。",
        "去年秋天我们种了三棵苹果树，只有一棵熬过了霜冻。",
        "没有人告诉她会议改到了星期四。",
        "这个山谷里的大多数河流在八月底之前就干涸了。",
        "烤箱太热的话，外皮会烧焦，里面还是生的。",
        "他记不起自己有没有锁门。",
        "第二版改正了几处错误，并增加了关于鸟类的一章。",
        "虽然买东西的人少了，三月份的价格还是又涨了。",
        "“走楼梯吧，”她说，“电梯从星期一起就坏了。”",
        "好的地图告诉你的比你知道的少，比你看见的多。",
        "暴风雨过后，志愿者清理了两个村庄之间的道路。",
        "现在修屋顶比明年换屋顶便宜。",
    ),
    "Korean": (
        "도서관은 아홉 시에 문을 닫지만 열람실은 밤새 열려 있다.",
        "지난가을에 사과나무 세 그루를 심었는데 한 그루만 서리를 견뎠다.",
        "회의가 목요일로 미뤄졌다고 아무도 그녀에게 말하지 않았다.",
        "이 골짜기의 강은 대부분 팔월이 끝나기 전에 마른다.",
        "오븐이 너무 뜨거우면 겉은 타고 속은 익지 않는다.",
        "그는 문을 잠갔는지 기억나지 않았다.",
        "두 번째 판은 몇 가지 잘못을 고치고 새에 관한 장을 더했다.",
        "사는 사람은 줄었지만 삼월에 물가가 다시 올랐다.",
        "“계단으로 가.” 그녀가 말했다. “승강기는 월요일부터 고장이야.”",
        "좋은 지도는 아는 것보다 적게, 보이는 것보다 많이 보여 준다.",
        "폭풍이 지나간 뒤 자원봉사자들이 두 마을 사이의 길을 치웠다.",
        "내년에 지붕을 바꾸는 것보다 지금 고치는 것이 싸다.",
    ),
    "Arabic": (
        "تغلق المكتبة في التاسعة، لكن قاعة القراءة تبقى مفتوحة طوال الليل.",
        "زرعنا في الخريف الماضي ثلاث أشجار تفاح، ولم تنج من الصقيع إلا واحدة.",
        "لم يخبرها أحد أن الاجتماع تأجل إلى يوم الخميس.",
        "تجف معظم أنهار هذا الوادي قبل نهاية شهر أغسطس.",
        "إذا كان الفرن ساخنا جدا احترقت القشرة وبقي الوسط نيئا.",
        "لم يتذكر هل أغلق الباب أم لا.",
        "تصحح الطبعة الثانية بعض الأخطاء وتضيف فصلا عن الطيور.",
        "ارتفعت الأسعار مرة أخرى في مارس مع أن الناس اشتروا أقل.",
        "قالت: «خذ الدرج، فالمصعد معطل منذ يوم الاثنين».",
        "الخريطة الجيدة تريك أقل مما تعرف وأكثر مما ترى.",
        "بعد العاصفة نظف المتطوعون الطريق بين القريتين.",
        "إصلاح السقف الآن أرخص من استبداله في العام القادم.",
    ),
    "Hindi": (
        "पुस्तकालय नौ बजे बंद होता है, लेकिन वाचनालय रात भर खुला रहता है।",
        "पिछले पतझड़ में हमने सेब के तीन पेड़ लगाए; केवल एक पाले से बचा।",
        "किसी ने उसे नहीं बताया कि बैठक गुरुवार को होगी।",
        "इस घाटी की अधिकांश नदियाँ अगस्त के अंत से पहले सूख जाती हैं।",
        "अगर तंदूर बहुत गरम हो तो ऊपर जल जाता है और बीच कच्चा रहता है।",
        "उसे याद नहीं था कि उसने दरवाज़ा बंद किया था या नहीं।",
        "दूसरे संस्करण में कुछ गलतियाँ ठीक हुईं और पक्षियों पर एक अध्याय जुड़ा।",
        "मार्च में दाम फिर बढ़ गए, हालाँकि कम लोगों ने कुछ खरीदा।",
        "उसने कहा, “सीढ़ियों से जाओ, लिफ़्ट सोमवार से ख़राब है।”",
        "अच्छा नक्शा जानने से कम और देखने से अधिक दिखाता है।",
        "तूफ़ान के बाद स्वयंसेवकों ने दोनों गाँवों के बीच की सड़क साफ़ की।",
        "छत की मरम्मत अभी करना अगले साल बदलने से सस्ता है।",
    ),
}


def mistral_vocabulary() -> MistralTokenizer | None:
    """The vocabulary of Mistral 7B 0.1, or `None` where mistral-common is not installed.

    >>> tokenizer = mistral_vocabulary()
    >>> tokenizer is None or tokenizer.vocabulary_size() == 32_000
    True
    """
    folder = _folder()
    return None if folder is None else MistralTokenizer(folder / "tokenizer.model.v1")


def tekken_vocabulary() -> TekkenVocabulary | None:
    """Mistral's Tekken vocabulary of September 2024, or `None` without mistral-common.

    >>> vocabulary = tekken_vocabulary()
    >>> vocabulary is None or len(vocabulary.controls) + len(vocabulary.tokens) == 131_072
    True
    """
    folder = _folder()
    return (
        None if folder is None else MistralTekkenTokenizer(folder / "tekken_240911.json").vocabulary
    )


def _folder() -> Path | None:
    """Where mistral-common keeps its vocabularies."""
    package = importlib.util.find_spec("mistral_common")
    if package is None or package.submodule_search_locations is None:
        return None
    return Path(package.submodule_search_locations[0]) / "data"


def cut_all() -> dict[str, dict[str, list[int]]] | None:
    """How many tokens each text has: by vocabulary and by kind. `None` without mistral-common.

    Returns:
        Of "sentencepiece", Mistral 7B's; of "tekken"; of "small", Tekken's first 32,000 ids; and of
        "wrong", Tekken where another pattern cuts the words. "differ" is 1 where that changes ids.
    """
    sentencepiece, whole = mistral_vocabulary(), tekken_vocabulary()
    if sentencepiece is None or whole is None:
        return None
    first = whole.tokens[: SMALL - len(whole.controls)]
    made = {
        "tekken": whole,
        "small": dataclasses.replace(whole, tokens=first),
        "wrong": dataclasses.replace(whole, pattern=WRONG_PATTERN),
    }
    rows = {"sentencepiece": {kind: sentencepiece.encode(texts) for kind, texts in TEXTS.items()}}
    for name, vocabulary in made.items():
        tokenizer = MistralTekkenTokenizer(vocabulary.to_json())
        rows[name] = {kind: tokenizer.encode(texts) for kind, texts in TEXTS.items()}
    counts = {
        name: {kind: [len(ids) for ids in texts] for kind, texts in kinds.items()}
        for name, kinds in rows.items()
    }
    counts["differ"] = {
        kind: [int(ours != theirs) for ours, theirs in zip(rows["tekken"][kind], texts)]
        for kind, texts in rows["wrong"].items()
    }
    return counts


def recorded_counts() -> dict[str, dict[str, list[int]]]:
    """What `cut_all` returns, from the record.

    >>> recorded_counts()["tekken"]["English"][:3]
    [15, 16, 12]
    """
    return json.loads(RECORD.read_text(encoding="utf-8"))


def main() -> None:
    """Writes the record."""
    counts = cut_all()
    if counts is None:
        raise SystemExit("Install mistral-common: it brings Mistral's vocabularies.")
    lines = [
        f' "{name}": {{\n'
        + ",\n".join(f'  "{kind}": {row}' for kind, row in kinds.items())
        + "\n }"
        for name, kinds in counts.items()
    ]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
