"The made-up tasks are what they say, and a reader can learn them."

import torch
from torch import nn

from mmcourse.tasks import (
    DIGITS,
    LETTERS,
    LookupReader,
    lookup_task,
    task_hits,
    train_on,
    two_lookups,
)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def test_both_answers_stand_beside_the_letters_asked_for():
    tokens, y = two_lookups(200, 8, gen(0))
    assert tokens.shape == (200, 9, 3)
    for row, answers in zip(tokens.tolist(), y.tolist()):
        listed = {letter: digit for letter, digit, _ in row[:-1]}
        first, none, second = row[-1]
        assert len(listed) == 8  # no letter twice
        assert none == DIGITS
        assert first != second
        assert [listed[first], listed[second]] == answers
        assert {second for _, _, second in row[:-1]} == {LETTERS}


def test_one_look_up_asks_for_the_first_letter_alone():
    tokens, y = lookup_task(50, 5, gen(1))
    both, answers = two_lookups(50, 5, gen(1))
    assert (tokens[:, -1, 2] == LETTERS).all()
    assert torch.equal(tokens[..., :2], both[..., :2])
    assert torch.equal(y, answers[:, 0])


def test_reader_shapes_and_what_it_embeds():
    tokens, _ = two_lookups(4, 3, gen(0))
    assert LookupReader(nn.Identity(), 6)(tokens).shape == (4, 10)
    reader = LookupReader(nn.LSTM(6, 5, batch_first=True), 6, width=5, answers=2)
    assert reader(tokens).shape == (4, 10, 2)
    for part in (reader.letter, reader.digit, reader.second):
        before = reader.embed(tokens)
        nn.init.zeros_(part.weight)
        assert not torch.equal(before, reader.embed(tokens))


def test_training_teaches_and_hits_are_counted_on_new_sequences():
    def first_letter(n, pairs, g):  # answers the question's letter, modulo ten
        tokens, _ = lookup_task(n, pairs, g)
        return tokens, tokens[:, -1, 0] % 10

    torch.manual_seed(0)
    model = LookupReader(nn.Identity(), 16)
    before = task_hits(first_letter, model, 4)
    train_on(first_letter, model, 0, 300)
    assert not model.training
    assert (
        task_hits(first_letter, model, 4).float().mean() > 0.95 > before.float().mean()
    )
    assert task_hits(
        two_lookups, LookupReader(nn.Identity(), 4, answers=2), 4
    ).shape == (
        2000,
        2,
    )


def test_training_repeats_itself_for_a_seed():
    def trained(seed):
        torch.manual_seed(0)
        model = LookupReader(nn.Identity(), 4)
        return train_on(lookup_task, model, seed, 5).letter.weight.detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
