"""Request ids, seen from both ends of a connection."""

from derma_semantics import DermaClient


def test_the_service_and_the_answer_name_the_same_id(kserve):
    service, port, _ = kserve()
    with DermaClient(f"127.0.0.1:{port}") as client:
        assert client.classify(b"x", request_id="mine").request_id == "mine"
        ids = [answer.request_id for answer in client.classify([b"x", b"y"])]
    assert service.ids[0] == "mine"
    assert sorted(service.ids[1:]) == sorted(ids) and len(set(ids)) == 2
