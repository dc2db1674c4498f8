"""The README.md of a model folder, in the form that Hugging Face reads."""

from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True)
class ModelCard:
    """What a reader wants to know of a model: name, data, phases and the numbers it was left with."""

    name: str = "antiphon"
    base_model: str | None = None
    licence: str = "apache-2.0"
    licences: dict[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    phases: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)

    def render(self, tasks: dict[str, str], streams: dict[str, Any], voices: list[str]) -> str:
        """The whole README: YAML head, then tables."""
        head: dict[str, Any] = {
            "license": self.licence,
            "library_name": "transformers",
            "pipeline_tag": "any-to-any",
            "tags": ["antiphon", "speech", "text-to-speech", "automatic-speech-recognition"],
        }
        if self.base_model:
            head["base_model"] = self.base_model
        if self.languages:
            head["language"] = list(self.languages)
        sections = [
            f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {self.name}\n",
            "A discrete-token speech-text language model made by Antiphon. `AutoModelForCausalLM` and `AutoTokenizer` "
            "load it as it is; `antiphon.json` says which ids are text, markers and codes of which stream.\n",
            _table("Tasks", ("task", "template"), [(task, f"`{text}`") for task, text in sorted(tasks.items())]),
            _table(
                "Streams",
                ("stream", "frames per second", "codebooks", "codes each"),
                [
                    (name, info["frame_rate_hz"], info["num_codebooks"], info["codebook_size"])
                    for name, info in sorted(streams.items())
                ],
            ),
            _table("Data", ("", ""), sorted(self.data.items())),
            _table("Licences", ("of", "licence"), [("this model", self.licence), *sorted(self.licences.items())]),
            _table("Phases", ("phase", "steps", "learning rate", "mixture"), [_phase_row(row) for row in self.phases]),
            _table("Training metrics", ("metric", "value"), sorted(self.metrics.items())),
        ]
        if voices:
            sections.append(f"## Voices\n\n{', '.join(voices)}\n")
        return "\n".join(section for section in sections if section)


def _phase_row(phase: dict[str, Any]) -> tuple[Any, ...]:
    mixture = ", ".join(f"{group} {weight:g}" for group, weight in phase["weights"].items())
    lora = phase.get("lora")
    name = phase["name"] + (f" (LoRA, {'merged; adapter/' if lora.export == 'adapter' else 'merged'})" if lora else "")
    return name, phase["steps"], f"{phase['lr']:g}", mixture


def _table(title: str, columns: tuple[str, ...], rows: list[Any]) -> str:
    if not rows:
        return ""
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"## {title}\n", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *lines]) + "\n"
