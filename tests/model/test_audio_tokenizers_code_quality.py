"""Quality of codes against values worked out by hand."""

import numpy as np
import pytest

from model.audio_tokenizers.code_quality import code_statistics, label_agreement


def test_agreement_is_what_the_definitions_give_by_hand():
    # Joint counts of code and phone over 8 frames: code 0: a 3, b 1; code 1: a 1, b 3.
    codes = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    phones = np.array(["a", "a", "a", "b", "a", "b", "b", "b", ""])
    found = label_agreement(codes, phones)
    # I = 2 (3/8 log2(3/8 / 1/4)) + 2 (1/8 log2(1/8 / 1/4)) = 3/4 log2(3/2) - 1/4 bits, and H(phone) = 1 bit
    assert found == {
        "purity": pytest.approx(6 / 8),
        "cluster_purity": pytest.approx(6 / 8),
        "pnmi": pytest.approx(0.75 * np.log2(1.5) - 0.25),
    }


def test_purities_differ_when_codes_are_finer_than_phones():
    codes = np.array([0, 0, 1, 1, 2, 2])
    phones = np.array(["a", "a", "a", "a", "b", "b"])
    assert label_agreement(codes, phones) == {
        "purity": pytest.approx(1),
        "cluster_purity": pytest.approx(2 / 6 + 2 / 6),
        "pnmi": pytest.approx(1),
    }


def test_codes_that_say_nothing_have_no_information_and_no_labels_give_no_figures():
    found = label_agreement(np.array([0, 1, 0, 1]), np.array(["a", "a", "b", "b"]))
    assert (found["pnmi"], found["purity"]) == (pytest.approx(0), pytest.approx(0.5))
    assert label_agreement(np.array([0, 1]), np.array(["", ""])) == {}


def test_bits_per_second_are_rate_times_codebooks_times_bits():
    codes_NK = np.array([[0, 0], [0, 1], [1, 2], [1, 3]])
    found = code_statistics(codes_NK, 4, 50.0)
    assert found["bitrate_bps"] == pytest.approx(50 * 2 * 2)
    assert found["entropy_bps"] == pytest.approx(50 * (1 + 2))
    assert found["codebook_used"] == pytest.approx((0.5 + 1) / 2)
    assert found["perplexity"] == pytest.approx((2 + 4) / 2)
