"""Explanations of the metrics, shown on hover and in the glossary."""

from __future__ import annotations

#: Metric -> one or two sentences.
GLOSSARY: dict[str, str] = {
    "J": (
        "Jaccard index (mean IoU) of the mask with probability above 0.5: mean over the frames of a clip, "
        "then over clips. In a frame without a sounding object it is the share of pixels predicted as "
        "background."
    ),
    "F": (
        "F-measure with β² = 0.3, which weighs precision more than recall. On S4 and MS3 every clip has the "
        "threshold of 255 that is best for it, as published; on AVSS it is the mean over classes."
    ),
    "F_half": "F of the single mask with probability above 0.5, the mask of J.",
    "F_split": "F at one threshold for all clips, the one that is best for their mean.",
    "threshold": "The threshold of F_split, as a probability in percent.",
    "J_object": "J over all frames with a sounding object.",
    "false_positive_area": "Share of pixels predicted as sounding in the frames without a sounding object.",
    "J&F": "Mean of the region measure J and the contour measure F of DAVIS 2017.",
    "mIoU": (
        "Mean IoU over the 71 classes, background included; the value of a class is the mean over the frames "
        "in which prediction or ground truth contains it."
    ),
    "mIoU_no_background": "mIoU over the 70 classes without the background.",
    "F_no_background": "F over the 70 classes without the background.",
    "mIoU_seen": "mIoU over the classes that occur in prediction or ground truth.",
    "F_seen": "F over the classes that occur in prediction or ground truth.",
    "classes_seen": "Number of classes that occur in prediction or ground truth.",
    "audio gain": (
        "Score with a clip's own recording minus that with another recording, in percentage points; 0 for a "
        "model that ignores the audio."
    ),
    "audio sensitivity": (
        "1 minus the mean IoU of the predictions with the clip's own and with the other recording."
    ),
    "interval": "95 % bootstrap interval over clips (2,000 resamples).",
    "rank": (
        "Position by the first metric among measured rows. Rows that do not differ significantly from the "
        "first row of a rank (paired bootstrap over clips, 95 %) share the rank. Reported values are not "
        "ranked."
    ),
    "GMACs": "10⁹ multiply-accumulates of a forward pass on one clip, without the audio encoder.",
    "parameters": "Parameters of the network in millions, without the audio encoder.",
    "clips/s": "Clips per second in training; the device is named where `avsb bench` has measured it.",
}


def explain(metric: str) -> str:
    """The explanation of a metric, empty if there is none."""
    return GLOSSARY.get(metric, "")
