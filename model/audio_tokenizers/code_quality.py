"""What codes say: how much of their codebook they use, how many bits a second, what they tell about phones and words.

Shapes: N = frames, K = codebooks, C = codes of a codebook, Y = labels.
"""

import numpy as np

from model.audio_tokenizers.base import codebook_use

NO_LABEL = ""


def code_statistics(codes_NK: np.ndarray, codebook_size: int, frame_rate_hz: float) -> dict[str, float]:
    """Use of the codebooks (means over them) and bits per second of all of them.

    `bitrate_bps` is nominal: every code as likely as any other; `entropy_bps` is what codes as frequent as these need.
    """
    num_codebooks = codes_NK.shape[1]
    use = [codebook_use(codes_NK[:, k], codebook_size) for k in range(num_codebooks)]
    means = {key: float(np.mean([one[key] for one in use])) for key in use[0]}
    return {
        "bitrate_bps": float(frame_rate_hz * num_codebooks * np.log2(codebook_size)),
        "entropy_bps": float(frame_rate_hz * num_codebooks * means["entropy_bits"]),
        **means,
    }


def label_agreement(codes_N: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
    """What codes tell about the label of their frame, over frames that have one; empty where none has.

    `purity`: how often the commonest label of a code is right; `cluster_purity`: how often the commonest code of a
    label is; `pnmi`: mutual information of code and label over the entropy of the labels, in [0, 1]. With phones as
    labels they are phone purity, cluster purity and PNMI of Hsu et al. 2021 (arXiv 2106.07447, section IV-E).
    """
    known_N = labels_N != NO_LABEL
    if not known_N.any():
        return {}
    _, indices_N = np.unique(labels_N[known_N], return_inverse=True)
    joint_CY = np.zeros((int(codes_N.max()) + 1, int(indices_N.max()) + 1))
    np.add.at(joint_CY, (codes_N[known_N].astype(int), indices_N), 1)
    joint_CY /= joint_CY.sum()
    of_code, of_label = joint_CY.sum(1, keepdims=True), joint_CY.sum(0, keepdims=True)
    seen = joint_CY > 0
    information = float((joint_CY[seen] * np.log(joint_CY[seen] / (of_code * of_label)[seen])).sum())
    entropy = float(-(of_label[of_label > 0] * np.log(of_label[of_label > 0])).sum())
    return {
        "purity": float(joint_CY.max(1).sum()),
        "cluster_purity": float(joint_CY.max(0).sum()),
        "pnmi": information / entropy if entropy > 0 else 1.0,
    }
