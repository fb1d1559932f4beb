"""The two maps side by side: their texts, methods and opacity, and what is told where there is none."""

from derma_semantics.app import texts
from tests.model.app.conftest import SCRIPT, opened, shown


def with_maps(client):
    page = opened(client, "Sample")
    return page.button(key="xray").click().run()


def typed(page, text):
    """The first text, as a browser would send it; AppTest knows no options that are typed."""
    box = page.selectbox(key="left Melanoma")
    box.options.append(text)
    box.set_value(text)
    return page


def test_two_maps_side_by_side(client):
    page = with_maps(client)
    assert client.explained == [(None, "MEL", None), (None, "NV", None)]
    assert len(page.get("image")) == 3
    assert shown(page).count("+0.080, closer to this text") == 2
    assert texts.OTHER_WEIGHTS not in shown(page)


def test_opacity_is_a_matter_of_drawing(client):
    page = with_maps(client)
    before = [image.value for image in page.get("image")]
    page.slider(key="opacity").set_value(90).run()
    after = [image.value for image in page.get("image")]
    assert len(client.explained) == 2
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_free_text_and_methods_are_asked_for(client):
    page = with_maps(client)
    page.radio(key="method").set_value("Grad-CAM")
    page.selectbox(key="right Melanocytic nevus").set_value("Dermatofibroma")
    typed(page, " signs of melanoma ").run()
    assert client.explained[2:] == [("signs of melanoma", None, "grad-cam"), (None, "DF", "grad-cam")]


def test_the_methods_are_those_that_the_sidecar_says_it_has(client):
    client.methods = {"new": "A new method", "newer": "A newer one"}
    page = with_maps(client)
    assert page.radio(key="method").options == ["Default", "A new method", "A newer one"]
    page.radio(key="method").set_value("A newer one").run()
    assert client.explained[-1] == (None, "NV", "newer")


def test_a_condition_may_be_typed(client):
    typed(with_maps(client), "dermatofibroma").run()
    assert client.explained[-1] == (None, "DF", None)


def test_prompts_are_letters_not_markup(client):
    page = with_maps(client)
    typed(page, SCRIPT).run()
    assert client.explained[-1] == (SCRIPT, None, None)
    assert SCRIPT not in shown(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown(page)
    assert not any(SCRIPT in caption for image in page.get("image") for caption in image.captions)


def test_a_refused_prompt_leaves_the_other_map(client):
    page = with_maps(client)
    typed(page, "too long").run()
    assert "The prompt has too many characters." in shown(page)
    assert len(page.get("image")) == 2


def test_maps_of_other_weights_are_told(client):
    client.other_digest = "ef" * 32
    assert texts.OTHER_WEIGHTS in shown(with_maps(client))


def test_without_the_sidecar_the_page_says_so_and_recovers(client):
    client.sidecar_down = True
    page = with_maps(client)
    assert texts.SALIENCY_DOWN in shown(page)
    assert len(client.explained) == 2  # once a drawing: the page is drawn again, to go on asking
    assert "127.0.0.1:8003 is not available: refused" in shown(page)
    assert "High risk" in shown(page)
    client.sidecar_down = False
    page.run()
    assert texts.SALIENCY_DOWN not in shown(page)
    assert len(page.get("image")) == 3
