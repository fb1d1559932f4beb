"""Many images at once: the table, its CSV, and the list of failures."""

import csv
import io

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.errors import CorruptImage
from tests.model.app.conftest import DIGEST, MELANOMA, SCRIPT, opened, shown


def batch_of(page, *files):
    page.file_uploader(key="batch").set_value([(name, data, "image/jpeg") for name, data in files]).run()
    return page.button(key="classify").click().run()


def test_a_batch_is_a_table_and_a_list_of_failures(client, jpeg):
    client.risk = 0.0083996
    page = batch_of(opened(client), ("a.jpg", jpeg(1)), (f"{SCRIPT}.jpg", b"bad"), ("c.jpg", jpeg(3)))
    table = page.dataframe[0].value
    assert list(table["Image"]) == ["a.jpg", "c.jpg"]
    assert list(table["Probability"]) == [72.0, 72.0]
    assert list(table["Risk score"]) == [client.risk] * 2  # shown with the digits that the alert has
    assert b"0.008399" in page.dataframe[0].proto.arrow_data.styler.display_values
    assert list(table["Alert"]) == ["High risk", "High risk"]
    assert "1 image was not classified" in shown(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.jpg: The JPEG is truncated." in shown(page)
    assert SCRIPT not in shown(page)
    assert page.button(key="classify").label == "Classify 3 images"


def test_a_batch_s_csv_has_every_image(client, jpeg):
    from derma_semantics.app.batch import as_csv

    answers = [("a.jpg", client.classify(b"x")), ("b.jpg", CorruptImage("damaged, and how"))]
    formulas = [("=1+1.jpg", answers[0][1]), ("@x.jpg", CorruptImage("-1"))]
    good, bad = csv.DictReader(io.StringIO(as_csv(answers)))
    assert good["condition"] == "MEL"
    assert [float(good[code]) for code in CODES] == list(MELANOMA)
    assert (good["triage"], good["high_risk"], good["prediction_set"]) == ("urgent", "true", "MEL NV")
    assert good["bundle_digest"] == DIGEST
    assert (bad["image"], bad["error"], bad["message"]) == ("b.jpg", "CorruptImage", "damaged, and how")
    assert (good["error"], bad["MEL"]) == ("", "")
    one, two = csv.DictReader(io.StringIO(as_csv(formulas)))
    assert (one["image"], two["image"], two["message"]) == ("'=1+1.jpg", "'@x.jpg", "'-1")
    assert {**one, "image": ""} == {**good, "image": ""}


def test_a_batch_ends_where_the_service_does(client, jpeg):
    client.dies_at = 1
    page = batch_of(opened(client), *((f"{n}.jpg", jpeg(n)) for n in range(4)))
    assert list(page.dataframe[0].value["Image"]) == ["0.jpg"]
    assert "3 images were not classified." in shown(page)


def test_other_files_are_another_batch(client, jpeg):
    page = batch_of(opened(client), ("a.jpg", jpeg(1)))
    assert page.button(key="classify").label == "Classify 1 image"
    page.file_uploader(key="batch").set_value([("b.jpg", jpeg(2), "image/jpeg")]).run()
    assert not page.dataframe
