"""Our byte-pair tokenizer against transformers' CLIPTokenizer and the tokenizers library."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from gligen_lessons import bpe, weights, world
from gligen_lessons.recipes.clip import learnt_tokenizer

TRICKY = ["", "a red car", "  A  RED   Car!! don't we've 42 ", "안녕 세계, naïve café",
          "snail, kite <|endoftext|> x", "e=mc² 😀 a\tb\n", "I'll they're 'S 'tis", "ǅ ﬁ İ ß"]


@pytest.fixture(scope="module")
def ours():
    return weights.tokenizer()


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    ours.save(folder)
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"),
                         model_max_length=ours.length)


def by_theirs(theirs, text: str) -> list[int]:
    return theirs([text], padding="max_length", truncation=True).input_ids[0]


@pytest.mark.parametrize("text", TRICKY)
def test_ids_of_tricky_text_are_those_of_transformers(ours, theirs, text):
    assert ours([text])[0].tolist() == by_theirs(theirs, text)


def test_ids_of_captions_are_those_of_transformers(ours, theirs):
    for seed in world.seeds("test", 200):
        for text in world.captions(world.scene(seed)):
            assert ours([text])[0].tolist() == by_theirs(theirs, text)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=15))
def test_ids_of_any_text_are_those_of_transformers(ours, theirs, text):
    assert ours([text])[0].tolist() == by_theirs(theirs, text)


def test_the_shipped_tokenizer_is_what_training_it_again_gives(ours):
    assert learnt_tokenizer().merges == ours.merges


def test_every_word_of_a_caption_is_one_token_and_no_control_word_is(ours):
    for seed in world.seeds("test", 300):
        assert not any(map(ours.unknown, world.captions(world.scene(seed))))
    assert ours.unknown("a green snail") == {"snail": ["s", "n", "a", "i", "l</w>"]}
    assert set(ours.unknown("a kite and a snail")) == {"kite", "snail"}


def test_learning_merges_by_hand_gives_what_the_library_gives():
    """The same pairs, each as common when its turn comes; equally common ones in any order."""
    text = ["low lower lowest newer wider new wide low"] * 3 + ["newest widest lows"]
    words = Counter()
    for word in " ".join(text).split():
        words[bpe.split_up(word)] += 1
    library = bpe.learn_merges(text)
    for pair in library:
        counts = Counter()
        for pieces, n in words.items():
            for two in zip(pieces, pieces[1:], strict=False):
                counts[two] += n
        best = bpe.commonest_pair(words)
        assert counts[pair] == counts[best] == max(counts.values())
        after = Counter()
        for pieces, n in words.items():
            after[bpe.merged(pieces, pair)] += n
        words = after
    assert all(len(pieces) == 1 for pieces in words)
    with pytest.raises(ValueError):
        bpe.commonest_pair(words)


def test_merging_joins_from_the_left_and_never_twice():
    assert bpe.merged(("a", "a", "a", "b"), ("a", "a")) == ("aa", "a", "b")
    assert bpe.merged(("a", "b", "a", "b</w>"), ("a", "b")) == ("ab", "a", "b</w>")
    assert bpe.commonest_pair({("a", "b"): 2, ("c", "b", "a"): 2, ("c", "b"): 1}) == ("c", "b")


def test_the_vocabulary_is_in_clips_order(ours):
    tokens = list(ours.vocabulary)
    assert tokens[0] == "!" and tokens[256] == "!</w>" and len(set(tokens)) == len(tokens)
    assert tokens[-2:] == [bpe.START, bpe.END]
    assert tokens[512] == "".join(ours.merges[0])


def test_a_caption_that_is_too_long_is_cut_with_a_warning():
    short = bpe.Tokenizer(weights.tokenizer().merges, length=6)
    with pytest.warns(UserWarning, match="has 7 tokens and only 4 fit.*after 'a red car and'"):
        ids = short(["a red car and a blue cat", "a cat"])
    assert ids.shape == (2, 6) and ids.dtype == torch.long
    assert ids[0, 0] == short.start and ids[0, -1] == short.end
    assert short.words(ids[0, 1:-1]) == "a red car and"


def test_a_lone_string_is_refused(ours):
    with pytest.raises(TypeError, match="a list of captions"):
        ours("a red car")


def test_no_captions_are_an_empty_batch(ours):
    assert ours([]).shape == (0, ours.length)


def test_a_merge_that_begins_with_a_hash_is_no_comment(tmp_path):
    bpe.Tokenizer([("#", "1</w>"), ("a", "b</w>")], 8).save(tmp_path)
    assert bpe.Tokenizer.load(tmp_path, 8).merges == [("#", "1</w>"), ("a", "b</w>")]


def test_what_is_saved_is_loaded(ours, tmp_path):
    ours.save(tmp_path)
    again = bpe.Tokenizer.load(tmp_path, 12)
    assert again.merges == ours.merges and again(["a red car"]).shape == (1, 12)
    with pytest.raises(FileNotFoundError):
        bpe.Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("word, pieces", [
    ("사과", ["\\xec", "\\x82", "\\xac", "\\xea", "\\xb3", "\\xbc</w>"]),
    ("café", ["c", "a", "f", "\\xc3", "\\xa9</w>"])])
def test_words_of_other_alphabets_are_shown_as_typed(word, pieces):
    assert bpe.Tokenizer([]).unknown(f"{word} a") == {word: pieces}
