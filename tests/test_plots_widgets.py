"""Plots and widgets: figures that are the same for the same data, and controls that act."""

import base64
import io

import matplotlib.image
import numpy as np
import pytest
from bs4 import BeautifulSoup

from mbta_helpers import plots, widgets
from mbta_helpers.errors import UserError


def pixels(data: bytes) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(data), format="png")


def line(values):
    figure, axes = plots.new_figure(size=(2, 1))
    plots.draw_path(axes[0, 0], np.array(values, dtype=float), plots.BLUE)
    return figure


def test_axes_are_always_a_table():
    for rows, columns in ((1, 1), (2, 3)):
        figure, axes = plots.new_figure(rows, columns, size=(3, 2))
        assert axes.shape == (rows, columns) and len(figure.axes) == rows * columns


def test_a_picture_is_the_same_for_the_same_figure():
    one, two = plots.png(line([[0, 0], [1, 1]])), plots.png(line([[0, 0], [1, 1]]))
    assert one == two != plots.png(line([[0, 1], [1, 0]]))
    assert pixels(one).shape[:2] == (100, 200)


def test_no_figure_stays_in_the_registry_of_pyplot():
    import matplotlib.pyplot

    plots.png(line([[0, 0], [1, 1]]))
    assert matplotlib.pyplot.get_fignums() == []


def test_a_picture_from_a_file_is_shown_as_it_is_with_its_text(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **rest: shown.append((data, rest)))
    (tmp_path / "line.png").write_bytes(plots.png(line([[0, 0], [1, 1]])))
    plots.show_picture(tmp_path / "line.png", alt="a line that rises")
    plots.show(line([[0, 0], [1, 1]]), alt="a line that rises")
    assert shown[0] == shown[1]
    assert shown[0][1]["metadata"] == {"image/png": {"alt": "a line that rises"}}


def test_palette_is_of_different_colours():
    assert len(set(plots.PALETTE)) == 8


def test_walls_lie_where_the_maze_has_them(umaze):
    figure, axes = plots.new_figure(size=(5, 5))
    plots.draw_maze(axes[0, 0], umaze)
    image = pixels(plots.png(figure))[..., 0]
    transform = axes[0, 0].transData
    rows, columns = umaze.shape
    for i in range(rows):
        for j in range(columns):
            x, y = transform.transform(umaze.centre((i, j)))
            shade = image[round(image.shape[0] - y), round(x)]
            assert shade < 0.9 if umaze.walls[i][j] else shade == 1.0, (i, j)


def test_plan_figure_has_both_paths_and_both_ends(umaze):
    plan = np.array([[-1.0, 1, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
    walked = np.linspace([-1.0, 1], [1, 1], 20)
    figure = plots.plan_figure(umaze, plan, walked, np.array([1.0, 1.0]))
    lines = [line.get_xydata() for line in figure.axes[0].lines]
    for expected in (walked, plan[:, :2], walked[:1], np.array([[1.0, 1.0]])):
        assert any(np.array_equal(expected, drawn) for drawn in lines)
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "walked",
        "first plan, as imagined",
    ]


def test_ellipse_has_two_deviations_each_way():
    _, axes = plots.new_figure()
    plots.draw_ellipse(axes[0, 0], np.array([1.0, 2.0]), np.array([0.5, 0.25]), plots.RED)
    ellipse = axes[0, 0].patches[0]
    assert (ellipse.width, ellipse.height) == (2.0, 1.0) and tuple(ellipse.center) == (1.0, 2.0)


def test_interval_is_the_mean_with_the_extremes():
    _, axes = plots.new_figure()
    values = np.array([[1.0, 4.0], [3.0, 8.0]])
    plots.draw_interval(axes[0, 0], np.array([0, 1]), values, plots.RED)
    assert axes[0, 0].lines[0].get_ydata().tolist() == [2.0, 6.0]
    heights = axes[0, 0].collections[0].get_paths()[0].vertices[:, 1]
    assert {1.0, 3.0, 4.0, 8.0} <= set(heights)


@pytest.mark.parametrize("kind", ["png", "pdf", "svg", "PNG"])
def test_a_figure_is_written_in_the_kind_of_its_suffix(tmp_path, kind):
    path = tmp_path / "new" / f"figure.{kind}"
    plots.save_figure(line([[0, 0], [1, 1]]), path)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[kind.lower()]
    assert path.read_bytes().startswith(start)
    assert list(path.parent.iterdir()) == [path]


def test_an_unknown_kind_of_figure_is_refused(tmp_path):
    with pytest.raises(UserError, match="png, pdf, svg, not 'gif'"):
        plots.save_figure(line([[0, 0], [1, 1]]), tmp_path / "figure.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_shown_figure_has_its_text(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(
        IPython.display, "display", lambda *data, **more: shown.append((data, more))
    )
    plots.show(line([[0, 0], [1, 1]]), alt="a line that rises")
    ((data,), more) = shown[0]
    assert data["image/png"].startswith(b"\x89PNG") and data["text/plain"] == "a line that rises"
    assert more["metadata"]["image/png"]["alt"] == "a line that rises" and more["raw"]


def test_cells_have_the_colours_of_their_values_and_walls_are_grey():
    _, axes = plots.new_figure(size=(2, 2))
    plots.draw_cells(axes[0, 0], np.array([[0.0, 1.0], [np.nan, 0.5]]), 0.0, 1.0)
    image = axes[0, 0].images[0]
    colours = image.to_rgba(image.get_array())
    assert len({tuple(colour) for colour in colours.reshape(-1, 4)}) == 4
    assert np.allclose(colours[1, 0, :3], colours[1, 0, 0])


def test_learning_curves_are_means_of_bins_with_their_intervals():
    values = np.arange(40.0).reshape(2, 20)
    _, axes = plots.new_figure(size=(2, 2))
    plots.draw_learning(axes[0, 0], values, plots.BLUE, "runs", width=5, first=100)
    drawn = axes[0, 0].lines[0]
    assert np.allclose(drawn.get_xdata(), [102.5, 107.5, 112.5, 117.5])
    assert np.allclose(drawn.get_ydata(), 12 + np.array([0, 5, 10, 15]))
    band = axes[0, 0].collections[0].get_paths()[0].vertices[:, 1]
    half = 1.96 * 20 / 2**0.5 / 2**0.5  # both bins of a column are 20 apart
    assert np.isclose(band.max(), 27 + half) and np.isclose(band.min(), 12 - half)


# -- widgets ----------------------------------------------------------------------------------


def test_figurine_draws_anew_when_a_control_moves():
    calls = []

    def draw(slope, offset):
        calls.append((slope, offset))
        return line([[0, offset], [1, slope + offset]])

    figurine = widgets.Figurine(
        draw,
        alt="a line whose slope moves",
        slope=widgets.slider(-2, 2, 1, 1, "slope"),
        offset=widgets.slider(0.0, 1.0, 0.0, 0.25, "offset"),
    )
    assert calls == [(1, 0.0)], "the picture is there before anything moves"
    first = bytes(figurine.picture.value)
    assert first.startswith(b"\x89PNG")
    for value in (-2, 2):  # the extremes
        figurine.controls["slope"].value = value
        assert calls[-1] == (value, 0.0)
    assert bytes(figurine.picture.value) != first
    figurine.controls["offset"].value = 0.75
    assert calls[-1] == (2, 0.75)
    assert "a line whose slope moves" in figurine.note.value
    assert figurine.children[-2:] == (figurine.picture, figurine.note)
    assert repr(figurine) == "Figurine(slope, offset)"


def test_slider_is_whole_only_if_all_its_numbers_are():
    whole, broken = widgets.slider(0, 5, 2, 1, "a"), widgets.slider(0, 5, 2, 0.5, "b")
    assert isinstance(whole.value, int) and isinstance(broken.value, float)
    assert (whole.min, whole.max, whole.step, whole.description) == (0, 5, 1, "a")
    assert not whole.continuous_update, "it should act when it is let go"


def test_a_flipbook_shows_the_page_whose_button_is_on():
    lines = {
        "up & on": ([[0, 0], [1, 1]], 'a line that "rises"'),
        "down": ([[0, 1], [1, 0]], "one"),
    }

    def html():
        book = widgets.Flipbook(
            {name: (line(values), alt) for name, (values, alt) in lines.items()}
        )
        assert repr(book) == "Flipbook(up & on, down)"
        return book._repr_html_()

    soup = BeautifulSoup(html(), "html.parser")
    buttons, labels, pictures = (soup.find_all(tag) for tag in ("input", "label", "img"))
    assert [button.has_attr("checked") for button in buttons] == [True, False]
    assert len({button["name"] for button in buttons}) == 1
    assert [label.text.strip() for label in labels] == list(lines)
    assert [picture["alt"] for picture in pictures] == [alt for _, alt in lines.values()]
    for button, label, picture, (values, _) in zip(
        buttons, labels, pictures, lines.values(), strict=True
    ):
        assert button["id"] == label["for"] == picture["class"][0]
        assert f"#{button['id']}:checked~.{button['id']}{{display:block}}" in soup.style.text
        assert base64.b64decode(picture["src"].partition(",")[2]) == plots.png(line(values))
    assert html() == html()
    with pytest.raises(UserError, match="at least one page"):
        widgets.Flipbook({})
