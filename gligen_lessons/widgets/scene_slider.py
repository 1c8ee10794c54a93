"""A scene with sliders for its data: what a picture of the world is a function of."""

import base64
from dataclasses import replace

import ipywidgets

from .. import show, world
from ..images import png
from ..world.vocabulary import PATTERNS, STYLES, TIMES, WEATHERS

SIZE = 192                                                # pixels drawn; shown twice as wide
AMOUNT = .5                                               # of a weather that is chosen first
FIRST_SCENE = 440                                         # a seed with room to move


def scene_slider(scene: world.Scene | None = None, index: int = 0) -> "SceneSlider":
    """Sliders that change a scene while its picture follows; thing number `index` can be moved.

    Without a scene, one of the world's own. Raises ValueError for a thing that is not there.
    """
    scene = world.scene(FIRST_SCENE) if scene is None else scene
    if not 0 <= index < len(scene.things):
        raise ValueError(f"The scene has no thing number {index}; it holds {len(scene.things)}, "
                         "counted from 0.")
    return SceneSlider(scene, index)


class SceneSlider(ipywidgets.HBox):
    """A scene, and sliders for its time, weather, style, and one thing's pattern and place.

    `scene` is the scene as the sliders have made it, `picture` what it looks like, `controls` the
    sliders by name. For scripts that look for them in a page, the whole carries the CSS class
    "scene-slider" and the picture "scene-picture".
    """

    def __init__(self, scene: world.Scene, index: int):
        self.scene, self.index = scene, index
        self.controls = _sliders(scene, scene.things[index])
        self.picture = ipywidgets.Image(format="png", width=2 * SIZE, height=2 * SIZE)
        self.caption = ipywidgets.HTML()
        self.picture.add_class("scene-picture")
        panel = ipywidgets.VBox([*self.controls.values(), self.caption])
        super().__init__([self.picture, panel], layout={"flex_flow": "row wrap"})
        self.add_class("scene-slider")
        for slider in self.controls.values():
            slider.observe(lambda change: self.redraw(), "value")
        self.redraw()

    def redraw(self) -> None:
        """Take the sliders' values into the scene and draw it."""
        set_to = {name: slider.value for name, slider in self.controls.items()}
        of_thing = {name: set_to.pop(name) for name in ("pattern", "x")}
        if set_to["weather"] == "clear":
            set_to["amount"] = 0.
        self.scene = replace(self.scene, **set_to).with_thing(self.index, **of_thing)
        alone = replace(self.scene, things=self.scene.things[self.index:self.index + 1])
        self.picture.value = png(world.render(self.scene, SIZE).image)
        self.caption.value = world.captions(alone)[0]

    def still(self) -> show.Picture:
        """The scene as it is, and with one slider moved at a time (how much goes with weather)."""
        now, thing = self.scene, self.scene.things[self.index]
        time, style = _another(TIMES, now.time), _another(STYLES, now.style)
        pattern, x = _another(PATTERNS, thing.pattern), .8 if thing.x < .5 else .2
        weather = _another(WEATHERS, now.weather)
        frames = {"as it is": now,
                  f"time: {time}": replace(now, time=time),
                  f"weather: {weather},\nhow much: 0.8": replace(now, weather=weather, amount=.8),
                  f"style: {style}": replace(now, style=style),
                  f"pattern: {pattern}": now.with_thing(self.index, pattern=pattern),
                  f"place: {x}": now.with_thing(self.index, x=x)}
        return show.strip([world.render(scene).image for scene in frames.values()],
                          titles=list(frames), size=1.36)

    def _repr_mimebundle_(self, **named):
        """The live sliders, and for pages without them a strip of what they do."""
        still = base64.b64encode(self.still()._repr_png_()).decode()
        return super()._repr_mimebundle_(**named) | {
            "text/plain": "Sliders for a scene (they move where a kernel runs).",
            "image/png": still}


def _another(words: tuple[str, ...], now: str) -> str:
    """The last of the words that is not the one chosen now."""
    return [word for word in words if word != now][-1]


def _sliders(scene: world.Scene, thing: world.Thing) -> dict[str, ipywidgets.Widget]:
    """One slider for each part of the scene that can be changed, by the part's name."""
    def words(description, options, value):
        return ipywidgets.SelectionSlider(description=description, options=options, value=value)

    def number(description, value):
        return ipywidgets.FloatSlider(description=description, value=value, min=min(0, value),
                                      max=max(1, value), step=.02)

    clear = scene.weather == "clear"
    return {"time": words("time", TIMES, scene.time),
            "weather": words("weather", WEATHERS, scene.weather),
            "amount": number("how much", AMOUNT if clear else scene.amount),
            "style": words("style", STYLES, scene.style),
            "pattern": words(f"{thing.category}: pattern", PATTERNS, thing.pattern),
            "x": number(f"{thing.category}: place", thing.x)}
