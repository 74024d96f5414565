"""Sentences in thirteen languages, and how Mistral's vocabularies cut them (used by chapter 2).

One sentence shows how a text is cut. What a language pays is counted on twelve others, the English
texts of `kinds_of_text` and their translations. All were written for this book before anything was
measured on them. The vocabularies come with the package mistral-common, which the book does not
require. What they make of the sentences is therefore kept in a record, which this writes anew:

    python -m mistral_lib.teaching.languages
"""

from __future__ import annotations

import json
from pathlib import Path

from mistral_lib.teaching.kinds_of_text import TEXTS, mistral_vocabulary, tekken_vocabulary
from mistral_lib.tekken import MistralTekkenTokenizer
from mistral_lib.tekken_vocabulary import TekkenVocabulary
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


# The English texts of `kinds_of_text`, and what they are in the languages that it has not.
TRANSLATIONS = {
    "English": TEXTS["English"],
    "Chinese": TEXTS["Chinese"],
    "French": TEXTS["French"],
    "Spanish": (
        "La biblioteca cierra a las nueve, pero la sala de lectura queda abierta toda la noche.",
        "El otoño pasado plantamos tres manzanos; solo uno sobrevivió a la helada.",
        "Nadie le había dicho que la reunión se había aplazado al jueves.",
        "La mayoría de los ríos de este valle se secan antes de finales de agosto.",
        "Si el horno está demasiado caliente, la corteza se quema y el centro queda crudo.",
        "No recordaba si había cerrado la puerta con llave.",
        "La segunda edición corrige algunos errores y añade un capítulo sobre las aves.",
        "Los precios volvieron a subir en marzo, aunque menos gente compró algo.",
        "«Ve por la escalera —dijo ella—. El ascensor no funciona desde el lunes».",
        "Un buen mapa muestra menos de lo que sabes y más de lo que ves.",
        "Tras la tormenta, unos voluntarios despejaron la carretera entre los dos pueblos.",
        "Sale más barato reparar el tejado ahora que cambiarlo el año que viene.",
    ),
    "German": (
        *TEXTS["German"][:11],  # the twelfth is about another subject
        "Das Dach jetzt auszubessern ist billiger, als es nächstes Jahr zu ersetzen.",
    ),
    "Japanese": (
        "図書館は九時に閉まるが、閲覧室は一晩中開いている。",
        "去年の秋にりんごの木を三本植えたが、霜に耐えたのは一本だけだった。",
        "会議が木曜日に変わったことを、誰も彼女に伝えていなかった。",
        "この谷の川のほとんどは、八月の終わりまでに干上がる。",
        "オーブンが熱すぎると、中が生のまま皮が焦げる。",
        "彼はドアに鍵をかけたかどうか思い出せなかった。",
        "第二版ではいくつかの誤りが直され、鳥についての章が加わった。",
        "買う人は減ったのに、三月に物価はまた上がった。",
        "「階段を使って」と彼女は言った。「エレベーターは月曜日から動いていないの。」",
        "よい地図は、知っていることより少なく、見えるものより多くを示す。",
        "嵐のあと、ボランティアが二つの村の間の道を片付けた。",
        "来年屋根を替えるより、今直すほうが安い。",
    ),
    "Russian": (
        "Библиотека закрывается в девять, но читальный зал открыт всю ночь.",
        "Прошлой осенью мы посадили три яблони; мороз пережила только одна.",
        "Никто не сказал ей, что собрание перенесли на четверг.",
        "Большинство рек в этой долине пересыхает ещё до конца августа.",
        "Если печь слишком горячая, корка подгорает, а середина остаётся сырой.",
        "Он не мог вспомнить, запер ли он дверь.",
        "Во втором издании исправлено несколько ошибок и добавлена глава о птицах.",
        "В марте цены снова выросли, хотя покупателей стало меньше.",
        "«Иди по лестнице, — сказала она. — Лифт не работает с понедельника».",
        "Хорошая карта показывает меньше, чем знаешь, и больше, чем видишь.",
        "После бури добровольцы расчистили дорогу между двумя деревнями.",
        "Починить крышу сейчас дешевле, чем менять её в следующем году.",
    ),
    "Finnish": (
        "Kirjasto suljetaan yhdeksältä, mutta lukusali on auki koko yön.",
        "Istutimme viime syksynä kolme omenapuuta; vain yksi niistä selvisi pakkasesta.",
        "Kukaan ei ollut kertonut hänelle, että kokous oli siirretty torstaille.",
        "Useimmat tämän laakson joet kuivuvat ennen elokuun loppua.",
        "Jos uuni on liian kuuma, kuori palaa ja sisus jää raa'aksi.",
        "Hän ei muistanut, oliko lukinnut oven.",
        "Toinen painos korjaa muutaman virheen ja lisää luvun linnuista.",
        "Hinnat nousivat taas maaliskuussa, vaikka yhä harvempi osti mitään.",
        '"Mene portaita", hän sanoi. "Hissi ei ole toiminut maanantain jälkeen."',
        "Hyvä kartta näyttää vähemmän kuin tiedät ja enemmän kuin näet.",
        "Myrskyn jälkeen vapaaehtoiset raivasivat kahden kylän välisen tien.",
        "Katon korjaaminen nyt on halvempaa kuin sen uusiminen ensi vuonna.",
    ),
    "Korean": TEXTS["Korean"],
    "Thai": (
        "ห้องสมุดปิดตอนสามทุ่ม แต่ห้องอ่านหนังสือเปิดตลอดคืน",
        "ฤดูใบไม้ร่วงที่แล้วเราปลูกต้นแอปเปิลสามต้น มีเพียงต้นเดียวที่รอดจากน้ำค้างแข็ง",
        "ไม่มีใครบอกเธอว่าการประชุมเลื่อนไปวันพฤหัสบดี",
        "แม่น้ำส่วนใหญ่ในหุบเขานี้แห้งก่อนสิ้นเดือนสิงหาคม",
        "ถ้าเตาอบร้อนเกินไป เปลือกจะไหม้ขณะที่ตรงกลางยังดิบ",
        "เขาจำไม่ได้ว่าล็อกประตูแล้วหรือยัง",
        "ฉบับพิมพ์ครั้งที่สองแก้ข้อผิดพลาดบางแห่งและเพิ่มบทเรื่องนก",
        "ราคาขึ้นอีกในเดือนมีนาคม แม้มีคนซื้อของน้อยลง",
        '"ขึ้นบันไดเถอะ" เธอบอก "ลิฟต์เสียตั้งแต่วันจันทร์"',
        "แผนที่ที่ดีบอกน้อยกว่าที่คุณรู้และมากกว่าที่คุณเห็น",
        "หลังพายุ อาสาสมัครช่วยกันเก็บกวาดถนนระหว่างสองหมู่บ้าน",
        "ซ่อมหลังคาตอนนี้ถูกกว่าเปลี่ยนใหม่ปีหน้า",
    ),
    "Arabic": TEXTS["Arabic"],
    "Greek": (
        "Η βιβλιοθήκη κλείνει στις εννέα, αλλά το αναγνωστήριο μένει ανοιχτό όλη τη νύχτα.",
        "Το περασμένο φθινόπωρο φυτέψαμε τρεις μηλιές· μόνο μία άντεξε την παγωνιά.",
        "Κανείς δεν της είχε πει ότι η συνάντηση μεταφέρθηκε για την Πέμπτη.",
        "Τα περισσότερα ποτάμια αυτής της κοιλάδας ξεραίνονται πριν από το τέλος Αυγούστου.",
        "Αν ο φούρνος είναι πολύ ζεστός, η κόρα καίγεται ενώ η μέση μένει ωμή.",
        "Δεν θυμόταν αν είχε κλειδώσει την πόρτα.",
        "Η δεύτερη έκδοση διορθώνει μερικά λάθη και προσθέτει ένα κεφάλαιο για τα πουλιά.",
        "Οι τιμές ανέβηκαν ξανά τον Μάρτιο, αν και λιγότεροι αγόρασαν κάτι.",
        "«Πήγαινε από τις σκάλες», είπε. «Το ασανσέρ δεν λειτουργεί από τη Δευτέρα».",
        "Ένας καλός χάρτης δείχνει λιγότερα απ' όσα ξέρεις και περισσότερα απ' όσα βλέπεις.",
        "Μετά την καταιγίδα, εθελοντές καθάρισαν τον δρόμο ανάμεσα στα δύο χωριά.",
        "Είναι φθηνότερο να επισκευάσεις τη στέγη τώρα παρά να την αλλάξεις του χρόνου.",
    ),
    "Hindi": TEXTS["Hindi"],
}


def cut(tokenizer: MistralTokenizer) -> dict[str, list[str]]:
    """The pieces into which a vocabulary cuts each of the sentences, by language."""
    return {language: pieces[0] for language, pieces in _pieces(tokenizer, SENTENCES).items()}


def cut_translations(tokenizer: MistralTokenizer) -> dict[str, list[list[str]]]:
    """The pieces into which a vocabulary cuts each of the translations, by language."""
    return _pieces(tokenizer, TRANSLATIONS)


def tekken_counts(vocabulary: TekkenVocabulary) -> dict[str, list[int]]:
    """How many tokens each of the translations has in a Tekken vocabulary, by language."""
    tokenizer = MistralTekkenTokenizer(vocabulary.to_json())
    rows = {language: tokenizer.encode(list(texts)) for language, texts in TRANSLATIONS.items()}
    return {language: [len(ids) for ids in row] for language, row in rows.items()}


def _pieces(tokenizer, texts):
    def of(text):
        ids = tokenizer.encode(text, add_bos=False, add_eos=False)
        return [tokenizer.id_to_token(id) for id in ids]

    return {
        language: [of(text) for text in ([written] if isinstance(written, str) else written)]
        for language, written in texts.items()
    }


def recorded_pieces() -> dict[str, list[str]]:
    """What Mistral 7B's vocabulary makes of the sentences, from the record.

    >>> recorded_pieces()["English"][:3]
    ['▁The', '▁train', '▁leaves']
    """
    return _record()["sentences"]


def recorded_translations() -> dict[str, list[list[str]]]:
    """What Mistral 7B's vocabulary makes of the translations, from the record.

    >>> [len(pieces) for pieces in recorded_translations()["English"]][:3]
    [16, 17, 12]
    """
    return _record()["translations"]


def recorded_tekken_counts() -> dict[str, list[int]]:
    """How many tokens Mistral's Tekken makes of each of the translations, from the record.

    >>> recorded_tekken_counts()["English"][:3]
    [15, 16, 12]
    """
    return _record()["tekken"]


def _record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def main() -> None:
    """Writes the record."""
    tokenizer, tekken = mistral_vocabulary(), tekken_vocabulary()
    if tokenizer is None or tekken is None:
        raise SystemExit("Install mistral-common: it brings the vocabularies.")
    made = {
        "sentences": cut(tokenizer),
        "translations": cut_translations(tokenizer),
        "tekken": tekken_counts(tekken),
    }
    lines = [
        f' "{name}": {{\n'
        + ",\n".join(
            f'  "{language}": {json.dumps(pieces, ensure_ascii=False)}'
            for language, pieces in rows.items()
        )
        + "\n }"
        for name, rows in made.items()
    ]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
