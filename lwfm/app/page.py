"""The page of ``lwfm app``: classes and their examples on the left, images and answers on the right."""

from __future__ import annotations

import functools
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import gradio as gr

from lwfm.errors import UserError
from lwfm.figures import save_figure
from lwfm.model.default import network_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lwfm.app.session import LocalImage, Session

Updates: TypeAlias = dict[Any, Any]
"""New values of components."""

STYLE: dict[str, Any] = {
    "theme": gr.themes.Base(primary_hue="teal"),
    "css_paths": Path(__file__).with_name("page.css"),
}
"""What the page is launched with; the fonts of this theme are files of gradio."""

_ALONE: dict[str, Any] = {"concurrency_id": "session", "concurrency_limit": 1}
"""Events that use the session are handled one after the other."""
_WELCOME = "Name a class and drop a few images of it. Two classes are enough to begin."
_CLICK_DOWNLOAD = "() => document.querySelector('#download').click()"


def build_page(session: Session) -> gr.Blocks:
    """Build the page of a session, to be launched with :data:`STYLE`.

    All tabs of the browser show the same session, and a page that is loaded again shows its present state.
    """
    with gr.Blocks(title="lwfm", analytics_enabled=False, fill_width=True) as blocks:
        page = _Page(session)
        blocks.load(page.show, None, page.outputs, **_ALONE)
    built: gr.Blocks = blocks
    return built


class _Page:
    """The components, and what happens on their events."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.drawn = 0
        self.pair: tuple[LocalImage, LocalImage] | None = None  # whose matches were drawn last
        self.revision = gr.State(0)  # a new value draws the cards of the classes again
        self.chosen = gr.State(None)  # number of the image whose answer is shown
        with gr.Row(elem_id="head"):
            self.status = gr.Markdown(_WELCOME, elem_id="status")
            self.save = gr.Button("Save classifier", size="sm", scale=0, min_width=140, elem_id="save")
            self.load = gr.UploadButton("Load classifier", size="sm", scale=0, min_width=140, elem_id="load")
            self.download = gr.DownloadButton(elem_id="download", elem_classes="lwfm-hidden")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=340):
                self._build_examples()
            with gr.Column(scale=5, min_width=480):
                self._build_images()
                self._build_answer()
        self.outputs = [
            self.revision, self.chosen, self.status, self.new_class, self.network, self.dropped, self.answers,
            self.buttons, self.answer, self.heading, self.probabilities, self.right_class, self.matches,
            self.no_matches,
        ]  # fmt: skip
        self.waiting = {**_ALONE, "show_progress": "minimal", "show_progress_on": self.status}
        self._connect()

    # The components.

    def _build_examples(self) -> None:
        gr.Markdown("## 1. Examples")
        with gr.Row(equal_height=False):
            self.new_class = gr.Textbox(
                placeholder="Name of a class", show_label=False, container=False, max_lines=1, scale=3,
                min_width=120, elem_id="new-class",
            )  # fmt: skip
            self.add_class = gr.Button(
                "Add class", variant="primary", size="md", scale=0, min_width=120, elem_id="add-class"
            )
        gr.render(self.revision, show_progress="hidden")(self._cards)
        self.network = gr.HTML(elem_classes="lwfm-quiet")

    def _build_images(self) -> None:
        gr.Markdown("## 2. Images to classify")
        self.dropped = gr.File(
            file_count="multiple",
            label="Images to classify",
            show_label=False,
            height=90,
            elem_id="images",
            elem_classes="lwfm-drop",
        )
        self.answers = gr.Gallery(
            label="Answers", show_label=False, height="auto", object_fit="contain", allow_preview=False,
            interactive=False, buttons=[], elem_id="answers", elem_classes="lwfm-gallery", visible=False,
        )  # fmt: skip
        with gr.Row(visible=False) as self.buttons:
            self.write = gr.Button("Answers as CSV", size="sm", scale=0, min_width=180, elem_id="write")
            self.clear = gr.Button("Remove these images", size="sm", scale=0, min_width=180, elem_id="clear")

    def _build_answer(self) -> None:
        with gr.Row(visible=False, equal_height=False) as self.answer:
            with gr.Column(scale=1, min_width=260):
                self.heading = gr.HTML(elem_id="heading")
                self.probabilities = gr.Label(
                    num_top_classes=5, label="Probability", show_heading=False, elem_id="probabilities"
                )
                self.right_class = gr.Dropdown(
                    label="Wrong? Choose or write the right class", allow_custom_value=True,
                    interactive=True, elem_id="right-class",
                )  # fmt: skip
                self.learn = gr.Button("Correct and learn", variant="primary", elem_id="learn")
            with gr.Column(scale=2, min_width=320):
                self.matches = gr.Image(
                    label="Matched positions", interactive=False, buttons=["fullscreen"], elem_id="matches"
                )
                self.no_matches = gr.HTML(elem_classes="lwfm-quiet")

    def _cards(self, _: int) -> None:
        """Draw a card for each class, with its examples and a place to drop more."""
        for name in self.session.classes:
            self._card(name)

    def _card(self, name: str) -> None:
        numbers = self.session.examples(name)
        shown = [number for number in numbers if self.session.sources[number] is not None]
        count = f"{len(numbers)} example{'s' * (len(numbers) != 1)}"
        with gr.Column(elem_classes="lwfm-card"):
            with gr.Row():
                text = f'<span class="lwfm-name">{html.escape(name)}</span>'
                gr.HTML(f'{text} &nbsp;<span class="lwfm-quiet">{count}</span>')
                remove = gr.Button("Remove", size="sm", min_width=70, scale=0)
            if shown:
                self._thumbnails(shown)
            drop = gr.File(
                file_count="multiple", label=f"Examples of {name}", show_label=False, height=48,
                elem_classes="lwfm-drop",
            )  # fmt: skip
        self._on(drop.upload, functools.partial(self._add_examples, name), [drop]).failure(
            _nothing, None, drop
        )
        self._on(remove.click, functools.partial(self._remove_class, name), [])

    def _thumbnails(self, numbers: list[int]) -> None:
        """Draw examples; one that is clicked can be removed."""
        sources = [self.session.sources[number] for number in numbers]
        gallery = gr.Gallery(
            [str(source.thumbnail) for source in sources if source], height="auto", object_fit="contain",
            show_label=False, allow_preview=False, interactive=False, buttons=[], elem_classes="lwfm-gallery",
        )  # fmt: skip
        clicked = gr.State(None)
        remove = gr.Button("Remove this example", size="sm", visible=False)

        def choose(event: gr.SelectData) -> tuple[int, Updates]:
            return numbers[event.index], gr.update(visible=True)

        gallery.select(choose, None, [clicked, remove])
        self._on(remove.click, self._remove_example, [clicked])

    # The events.

    def _connect(self) -> None:
        for trigger in (self.add_class.click, self.new_class.submit):
            self._on(trigger, self._add_class, [self.new_class])
        added = self._on(self.dropped.upload, self._add_images, [self.dropped])
        added.failure(_nothing, None, self.dropped)
        self._on(self.learn.click, self._correct, [self.chosen, self.right_class])
        self._on(self.clear.click, self._clear, [])
        self._on(self.load.upload, self._load, [self.load])
        self.answers.select(self._choose, None, self.outputs, **self.waiting)
        for button, action in ((self.save, self._save), (self.write, self._write_answers)):
            written = button.click(_in_sentences(action), None, self.download, **_ALONE)
            written.success(None, js=_CLICK_DOWNLOAD)

    def _on(self, trigger: Any, action: Callable[..., str], inputs: Sequence[Any]) -> Any:
        """Let an event change the session; what the action returns is shown as the status."""

        def act(chosen: int | None, *values: Any) -> Updates:
            return self.show(chosen, _in_sentences(action)(*values))

        return trigger(act, [self.chosen, *inputs], self.outputs, **self.waiting)

    def _add_class(self, name: str) -> str:
        self.session.add_class(name)
        return f"Drop examples of {name.strip()} into its card."

    def _add_examples(self, name: str, files: Sequence[str]) -> str:
        before = self.session.count()
        _warn(self.session.add_examples(name, [Path(file) for file in files]))
        return f"Learned {_counted(self.session.count() - before, 'example')} of {name}. {self._next_step()}"

    def _remove_class(self, name: str) -> str:
        _warn(self.session.remove_class(name))
        return f"Removed {name}. {self._next_step()}"

    def _remove_example(self, example: int) -> str:
        name = self.session.label_of(example)
        _warn(self.session.remove_example(example))
        return f"Removed an example of {name}. {self._next_step()}"

    def _add_images(self, files: Sequence[str]) -> str:
        _warn(self.session.add_images([Path(file) for file in files]))
        return self._next_step()

    def _clear(self) -> str:
        self.session.remove_images()
        return self._next_step()

    def _load(self, file: str) -> str:
        _warn(self.session.load(Path(file)))
        return f"Loaded {_counted(len(self.session.classes), 'class')} from {Path(file).name}."

    def _correct(self, chosen: int, name: str | None) -> str:
        if not name:
            raise UserError("choose the right class of this image, or write a new one")
        before = [decision and decision.label for decision in self.session.decisions]
        _warn(self.session.correct(chosen, str(name).strip()))
        after = [decision and decision.label for decision in self.session.decisions]
        changed = sum(one != other for one, other in zip(before, after, strict=True)) - (
            before[chosen] != after[chosen]
        )
        learned = f"Learned that {self.session.images[chosen].path.name} is {name}."
        return f"{learned} {_counted(changed, 'other answer')} changed."

    def _choose(self, event: gr.SelectData) -> Updates:
        return self.show(int(event.index))

    def _save(self) -> str:
        return str(self.session.save())

    def _write_answers(self) -> str:
        return str(self.session.write_answers())

    # What is shown.

    def show(self, chosen: int | None = None, status: str | None = None) -> Updates:
        """Return the present state of the session for all components that show it."""
        session = self.session
        self.drawn += 1
        if chosen is not None and chosen >= len(session.images):
            chosen = None
        answers = [(str(image.thumbnail), self._caption(n)) for n, image in enumerate(session.images)]
        network = html.escape(network_name(session.network))
        return {
            self.revision: self.drawn,
            self.chosen: chosen,
            self.status: gr.skip() if status is None else status,
            self.new_class: "",
            self.dropped: None,
            self.network: f"{_counted(session.count(), 'example')}, compared by {network}",
            self.answers: gr.update(value=answers, visible=bool(answers), selected_index=chosen),
            self.buttons: gr.update(visible=bool(answers)),
            **self._show_answer(chosen),
        }

    def _show_answer(self, chosen: int | None) -> Updates:
        decision = None if chosen is None else self.session.decisions[chosen]
        if chosen is None or decision is None:
            return {self.answer: gr.update(visible=False)}
        matches = self._draw_matches(chosen)
        name = html.escape(self.session.images[chosen].path.name)
        example = self.session.example_of(chosen)
        label = str(decision.label) if example is None else f"{self.session.label_of(example)} (learned)"
        heading = f'<h3>{html.escape(label)}</h3><span class="lwfm-quiet">{name}</span>'
        without = (
            f"The most similar example is {html.escape(decision.support_name)}. The file of the classifier "
            "does not hold its image, so that matched positions cannot be drawn."
        )
        return {
            self.answer: gr.update(visible=True),
            self.heading: heading,
            self.probabilities: self.session.probabilities(chosen),
            self.right_class: gr.update(choices=self.session.classes, value=None),
            self.matches: gr.update(visible=matches is not None, value=matches),
            self.no_matches: gr.update(visible=matches is None, value=without),
        }

    def _draw_matches(self, image: int) -> str | None:
        """Draw the matches of an image, unless they were drawn last; return the file, or None without any."""
        pair = self.session.matched_pair(image)
        place = self.session.folder / "matches.png"
        if pair is not None and pair != self.pair:
            save_figure(self.session.match_figure(image), place)
        self.pair = pair
        return None if pair is None else str(place)

    def _caption(self, image: int) -> str:
        decision, example = self.session.decisions[image], self.session.example_of(image)
        if example is not None:
            return f"✓ {self.session.label_of(example)}"
        return "" if decision is None else f"{decision.label} {100 * decision.probability:.0f} %"

    def _next_step(self) -> str:
        """Return what is missing before images are answered, or what can be done with the answers."""
        session = self.session
        missing = [name for name in session.classes if not session.examples(name)]
        if len(session.classes) < 2:
            return "Add another class: two are needed."
        if missing:
            return f"Drop examples of {missing[0]} into its card."
        return "Choose an image to see its answer." if session.images else "Drop images to classify."


def _nothing() -> None:
    """Empty a component."""


def _in_sentences(action: Callable[..., str]) -> Callable[..., str]:
    """Wrap an action: the sentence of a UserError appears on the page until it is closed."""

    @functools.wraps(action)
    def wrapped(*values: Any) -> str:
        try:
            return action(*values)
        except UserError as error:
            raise gr.Error(
                str(error), duration=None, title="Nothing changed", print_exception=False
            ) from error

    return wrapped


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        gr.Warning(sentence, duration=None, title="Left out")


def _counted(number: int, what: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> _counted(1, "example"), _counted(2, "class"), _counted(0, "image")
    ('1 example', '2 classes', 'no image')
    """
    plural = "" if number < 2 else "es" if what.endswith("s") else "s"
    return f"{number or 'no'} {what}{plural}"
