"""Configuration of what prepare may do to recordings after the manifest is read: word times, and cutting."""

from typing import Literal

from pydantic import Field, model_validator

from data.frozen import Frozen, placement


class VadSegmentation(Frozen):
    """Cut long recordings at pauses, by Silero VAD; segments point into the recording, nothing is encoded again."""

    kind: Literal["vad"]
    cut_above_s: float = Field(30.0, gt=0, description="recordings up to this long stay as they are")
    max_s: float = Field(20.0, gt=0, description="no segment is longer, its pads included")
    join_pause_s: float = Field(0.5, ge=0, description="speech on both sides of a pause up to this long is joined")
    pad_s: float = Field(0.1, ge=0, description="silence kept before and after speech, where there is as much")
    min_speech_s: float = Field(0.25, ge=0, description="shorter speech is taken for noise")
    min_pause_s: float = Field(0.1, gt=0, description="shorter silence is no pause")
    threshold: float = Field(0.5, gt=0.15, lt=1, description="probability from which a window of 32 ms is speech")

    @model_validator(mode="after")
    def _room_for_speech(self) -> "VadSegmentation":
        if self.max_s < 2 * self.pad_s + 1:
            raise ValueError(f"max_s is {self.max_s:g}, expected at least 1 s more than two pads of {self.pad_s:g} s")
        return self


class CtcAlignment(Frozen):
    """Word times by Viterbi alignment of the text to a CTC model's letters; words of the manifest are kept."""

    kind: Literal["ctc"]
    path: str = Field(description="folder, URL or hub id of a transformers CTC model, with safetensors and vocab.json")
    revision: str | None = Field(None, description="the commit of a hub id, which needs one")
    max_s: float = Field(600.0, gt=0, description="longer recordings get no word times: cost grows with the square")
    chunk_s: float = Field(30.0, gt=0, description="longer audio passes through the model in overlapping chunks")
    overlap_s: float = Field(4.0, ge=0, description="overlap of neighbouring chunks")
    num_gpus: float = placement(0.0, "GPUs of one worker", ge=0)

    @model_validator(mode="after")
    def _chunks_move_on(self) -> "CtcAlignment":
        if self.overlap_s >= self.chunk_s:
            raise ValueError(f"overlap_s is {self.overlap_s:g}, expected less than chunk_s, which is {self.chunk_s:g}")
        return self
