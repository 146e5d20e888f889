"""The WordPiece tokenizer and the members that models and datasets use."""

import pickle

import pytest

from xmodaler.config import get_cfg
from xmodaler.tokenization import BertTokenizer, LazyTokenizer, build_tokenizer
from xmodaler.utils.errors import UserError

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "dog",
    "run",
    "##ning",
    "##s",
    ",",
    "'s",
    "cafe",
    "犬",
    "Dog",
    "don",
]


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tokenizer(vocab_file):
    return BertTokenizer.from_pretrained(vocab_file, do_lower_case=True)


def test_words_are_cut_into_the_longest_pieces(tokenizer):
    assert tokenizer.tokenize("A dogs, running") == ["a", "dog", "##s", ",", "run", "##ning"]
    assert tokenizer.encode("A dogs, running") == [5, 6, 9, 10, 7, 8]
    assert tokenizer.encode_batch(["a", "", "dog"]) == [[5], [], [6]]


def test_accents_cjk_and_control_characters(tokenizer):
    assert tokenizer.tokenize("Café\x00 a犬a") == ["cafe", "a", "犬", "a"]


def test_white_space_gives_nothing_and_long_words_are_unknown(tokenizer):
    assert tokenizer.encode(" \t\n ") == [] and tokenizer.tokenize("") == []
    assert tokenizer.tokenize("dog" + "s" * 97) == ["dog"] + ["##s"] * 97
    assert tokenizer.tokenize("dog" + "s" * 98) == ["[UNK]"]


def test_special_tokens_in_a_text_stay_whole(tokenizer):
    assert tokenizer.tokenize("a [SEP]dog[MASK]") == ["a", "[SEP]", "dog", "[MASK]"]
    assert tokenizer.tokenize("a [sep]") == ["a", "[UNK]", "[UNK]", "[UNK]"]


def test_case_is_kept_if_asked(vocab_file):
    cased = BertTokenizer.from_pretrained(str(vocab_file), do_lower_case=False)
    assert cased.tokenize("Dog dog Café") == ["Dog", "dog", "[UNK]"]


def test_documented_members(tokenizer, tmp_path):
    assert tokenizer.vocab_size == len(tokenizer) == len(WORDS)
    assert list(tokenizer.vocab) == WORDS and tokenizer.ids_to_tokens[6] == "dog"
    assert (tokenizer.cls_token, tokenizer.sep_token_id, tokenizer.mask_token) == (
        "[CLS]",
        3,
        "[MASK]",
    )
    assert tokenizer.convert_tokens_to_ids("nothing") == tokenizer.unk_token_id == 1
    assert tokenizer.convert_tokens_to_ids(["dog", "nothing"]) == [6, 1]
    assert tokenizer.add_special_tokens_single_sentence([6]) == [2, 6, 3]
    assert tokenizer.add_special_tokens_sentences_pair([6], [7, 8]) == [2, 6, 3, 7, 8, 3]
    assert tokenizer.convert_tokens_to_string(["a", "run", "##ning", "dog"]) == "a running dog"
    assert tokenizer.decode([2, 5, 7, 8, 3], skip_special_tokens=True) == "a running"
    assert (tokenizer.max_len_single_sentence, tokenizer.max_len_sentences_pair) == (510, 509)
    assert tokenizer.max_model_input_sizes["bert-base-uncased"] == 512
    (saved,) = tokenizer.save_vocabulary(tmp_path)
    assert BertTokenizer(saved).vocab == tokenizer.vocab
    with pytest.raises(AttributeError):
        tokenizer.eos_token_id  # noqa: B018


def test_it_travels_to_workers(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("a running dog [SEP]") == tokenizer.encode("a running dog [SEP]")
    assert copy.fingerprint() == tokenizer.fingerprint()


def test_fingerprints_tell_tokenizers_apart(tokenizer, vocab_file, tmp_path):
    assert BertTokenizer(vocab_file).fingerprint() == tokenizer.fingerprint()
    assert BertTokenizer(vocab_file, do_lower_case=False).fingerprint() != tokenizer.fingerprint()
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*WORDS, "cat"]), encoding="utf-8")
    assert BertTokenizer(other).fingerprint() != tokenizer.fingerprint()


def test_a_folder_of_its_own_files_gives_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "saved")
    again = BertTokenizer.from_pretrained(tmp_path / "saved")
    assert again.encode("A dogs, running [MASK]") == tokenizer.encode("A dogs, running [MASK]")
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert BertTokenizer.from_pretrained(tmp_path / "saved").vocab == tokenizer.vocab


def test_a_tokenizer_of_another_kind_has_the_same_members(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    backend.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=60, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    backend.train_from_iterator(["ein Hund läuft", "zwei Hunde laufen"], trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == (
        "<s>",
        "</s>",
        "<mask>",
    )
    ids = tokenizer.encode("zwei Hunde laufen")
    assert tokenizer.cls_token_id not in ids
    assert tokenizer.decode(ids) == "zwei Hunde laufen"
    assert tokenizer.add_special_tokens_single_sentence(ids)[0] == 0


def test_what_is_wrong_is_said(tmp_path, vocab_file):
    (tmp_path / "poor.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"lacks \[UNK\]"):
        BertTokenizer.from_pretrained(tmp_path / "poor.txt")
    (tmp_path / "twice.txt").write_text("\n".join([*WORDS, "dog"]), encoding="utf-8")
    with pytest.raises(UserError, match="'dog' on two lines"):
        BertTokenizer(tmp_path / "twice.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither tokenizer\.json nor vocab\.txt"):
        BertTokenizer.from_pretrained(tmp_path / "empty")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json that can be read"):
        BertTokenizer.from_pretrained(tmp_path / "tokenizer.json")


def test_a_name_that_cannot_be_had_is_said(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    monkeypatch.setattr(hub.HfApi, "model_info", offline)
    with pytest.raises(UserError, match=r"'bert-large-cased'.*cannot be had.*no network"):
        BertTokenizer.from_pretrained("bert-large-cased")


def _config(vocab_file, size):
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(vocab_file)
    cfg.MODEL.VOCAB_SIZE = size
    return cfg


def test_a_config_names_the_tokenizer(vocab_file):
    assert build_tokenizer(_config(vocab_file, len(WORDS))).encode("dog") == [6]
    with pytest.raises(UserError, match="VOCAB_SIZE is 5; it must be at least 16"):
        build_tokenizer(_config(vocab_file, 5))


def test_a_lazy_tokenizer_reads_when_asked(vocab_file, tmp_path):
    lazy = pickle.loads(pickle.dumps(LazyTokenizer(_config(vocab_file, 16))))
    assert lazy.sep_token_id == 3 and len(lazy) == 16
    absent = LazyTokenizer(_config(tmp_path / "absent" / "v.txt", 16))
    with pytest.raises(UserError, match="cannot be had"):
        absent.vocab_size  # noqa: B018
