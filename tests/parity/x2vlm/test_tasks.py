"""Statements, boxes, videos, questions: the tasks give the numbers of the fixtures."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.functional.func_boxes import centre_to_corners, generalized_iou
from xmodaler.losses import AnswerLikelihood, BoxRegression, CrossEntropy
from xmodaler.losses.box_regression import box_losses


def text_batch(inputs, words="text"):
    return {
        kfg.U_TOKENS_IDS: inputs[f"{words}_ids"],
        kfg.TOKENS_MASKS: inputs[f"{words}_atts"],
    }


def learn(loss, outputs):
    """The one value of a loss, back-propagated."""
    values = loss(outputs)
    sum(values.values()).backward()
    return values


def test_statements_about_two_pictures(load_fixture, parity):
    fixture = load_fixture("nlvr2")
    model = parity.model(fixture, "X2VLMReasoning")
    first, second = fixture.inputs["image"].chunk(2)
    batch = {
        **text_batch(fixture.inputs),
        kfg.IMAGES: first,
        kfg.SECOND_IMAGES: second,
        kfg.U_TARGET_IDS: fixture.inputs["targets"],
    }
    outputs = model(batch)
    parity.close(outputs[kfg.U_LOGITS], fixture.expected["logits"], "logits")
    (loss,) = learn(CrossEntropy(), outputs).values()
    parity.close(loss, fixture.expected["loss"], "loss")
    parity.gradients(model, fixture, "")
    assert torch.equal(outputs[kfg.OUTPUT], fixture.expected["logits"].argmax(1))


def test_boxes_of_phrases(load_fixture, parity):
    fixture = load_fixture("grounding")
    model = parity.model(fixture, "X2VLMGrounding")
    batch = {**text_batch(fixture.inputs), kfg.IMAGES: fixture.inputs["image"]}
    outputs = model({**batch, kfg.TARGET_BBOX: fixture.inputs["target_bbox"]})
    parity.close(outputs[kfg.OUTPUT_BBOX], fixture.expected["output_coord"], "boxes")
    parity.close(outputs[kfg.OUTPUT], fixture.expected["eval/output_coord"], "boxes")
    losses = learn(BoxRegression(), outputs)
    parity.close(losses["Box L1"], fixture.expected["loss_bbox"], "loss_bbox")
    parity.close(losses["Box GIoU"], fixture.expected["loss_giou"], "loss_giou")
    parity.gradients(model, fixture, "")


def test_box_losses(load_fixture, parity):
    fixture = load_fixture("grounding")
    inputs, expected = fixture.below("boxcase/", fixture.inputs), fixture.expected
    output, target = inputs["output"], inputs["target"]
    for name, is_image in (("boxcase", None), ("boxcase_is_image", inputs["is_image"])):
        distance, overlap = box_losses(output, target, is_image)
        parity.close(distance, expected[f"{name}/loss_bbox"], name)
        parity.close(overlap, expected[f"{name}/loss_giou"], name)
    rows = len(output)
    pairs = [
        generalized_iou(centre_to_corners(output[row].expand(rows, 4)), centre_to_corners(target))
        for row in range(rows)
    ]
    parity.close(torch.stack(pairs), expected["boxcase/giou_matrix"], "giou_matrix")
    # Without a box the reference divides by zero; an inverted one there silences all others.
    alone = box_losses(output, target, torch.ones(rows))
    assert alone[0] == 0 and alone[1] == 0
    distance, overlap = box_losses(inputs["output_degenerate"], target)
    parity.close(distance, expected["boxcase_degenerate/loss_bbox"], "degenerate")
    assert overlap > 0 and overlap.isfinite()


def test_answers_to_questions_about_videos(load_fixture, parity):
    fixture = load_fixture("video-qa")
    labels = fixture.config["model"]["num_labels"]
    model = parity.model(fixture, "X2VLMClassifier", MODEL__X2VLM__NUM_LABELS=labels)
    inputs = fixture.inputs
    batch = {**text_batch(inputs), kfg.IMAGES: inputs["image"]}
    outputs = model({**batch, kfg.U_TARGET_IDS: inputs["targets"]})
    parity.close(outputs[kfg.U_LOGITS], fixture.expected["logits"], "logits")
    (loss,) = learn(CrossEntropy(), outputs).values()
    parity.close(loss, fixture.expected["loss"], "loss")
    parity.gradients(model, fixture, "")
    text_only = model(text_batch(inputs))[kfg.U_LOGITS]
    parity.close(text_only, fixture.expected["text_only_logits"], "text_only_logits")
    tokens = model.see({kfg.IMAGES: inputs["image"]})[kfg.ATT_FEATS]
    parity.close(tokens, fixture.expected["video_embeds"], "video_embeds")


def answers_batch(inputs):
    """The answers of a fixture, shifted by one word."""
    ids, shown = inputs["answer_ids"], inputs["answer_atts"].bool()
    return {
        **text_batch(inputs, "question"),
        kfg.IMAGES: inputs["image"],
        kfg.G_TOKENS_IDS: ids[:, :-1],
        kfg.G_TARGET_IDS: ids[:, 1:].masked_fill(~shown[:, 1:], -1),
        kfg.ANSWER_COUNTS: inputs["k"],
        kfg.ANSWER_WEIGHTS: inputs["weights"],
    }


def candidates(inputs):
    """The candidate answers without begin and end of sentence, and these two."""
    rows = zip(inputs["answer_list_ids"], inputs["answer_list_atts"].bool(), strict=True)
    words = [row[shown].tolist() for row, shown in rows]
    return [row[1:-1] for row in words], words[0][0], words[0][-1]


def positions(fixture):
    return fixture.weights["text_decoder.bert.embeddings.position_embeddings.weight"].shape[0]


def vqa_model(fixture, parity, weights=None):
    changes = {
        "MODEL__X2VLM__DECODER_LAYERS": fixture.config["model"]["num_dec_layers"],
        "MODEL__X2VLM__FIRST_WORD_TWICE": True,
    }
    changes["MODEL__X2VLM__DECODER_POSITIONS"] = positions(fixture)
    return parity.model(fixture, "X2VLMVQA", weights, **changes)


def check_ranking(model, batch, fixture, parity, name, top_k):
    model.top_k = top_k
    with torch.no_grad():
        best, scores = model.rank(batch)
    expected = fixture.expected
    assert torch.equal(best, expected[f"{name}/topk_ids"])
    parity.close(scores.softmax(1), expected[f"{name}/topk_probs"], name)


def test_answers_are_generated_and_ranked(load_fixture, parity):
    fixture = load_fixture("vqa")
    model, inputs, expected = vqa_model(fixture, parity), fixture.inputs, fixture.expected
    batch = answers_batch(inputs)
    (loss,) = learn(AnswerLikelihood(), model(batch)).values()
    parity.close(loss, expected["loss"], "loss")
    parity.gradients(model, fixture, "")
    shown = inputs["question_atts"].unsqueeze(-1)
    states = model.fused_pair(batch).padded() * shown
    parity.close(states, expected["question_states"] * shown, "question_states")
    model.set_answers(*candidates(inputs))
    for name in expected:
        if name.endswith("/topk_ids"):
            top_k = expected[name].shape[1]
            check_ranking(model, batch, fixture, parity, name.removesuffix("/topk_ids"), top_k)


def test_likelihoods_of_answers_are_exact(load_fixture, parity):
    fixture = load_fixture("vqa")
    model = vqa_model(fixture, parity)
    batch = text_batch(fixture.inputs, "question") | {kfg.IMAGES: fixture.inputs["image"]}
    model.set_answers(*candidates(fixture.inputs))
    model.first_twice, model.top_k = False, 0
    with torch.no_grad():
        best, scores = model.rank(batch)
    found = torch.empty_like(scores).scatter_(1, best, scores)
    parity.close(found, fixture.expected["answer_loglik"], "answer_loglik")


FAMILIES = {"vqa": "X2VLMVQA", "xvnli": "X2VLMClassifier", "marvl": "X2VLMReasoning"}


@pytest.mark.parametrize("task", FAMILIES)
def test_tasks_in_many_languages(load_fixture, parity, task):
    fixture = load_fixture("multilingual-vqa")
    inputs = fixture.inputs
    heads = {"xvnli_cls_head.", "marvl_cls_head.", "text_decoder."}
    mine = {"vqa": "text_decoder."}.get(task, f"{task}_cls_head.")
    weights = {
        name.replace(f"{task}_cls_head.", "cls_head."): value
        for name, value in fixture.weights.items()
        if name.startswith(mine) or not any(name.startswith(head) for head in heads)
    }
    changes = {
        "MODEL__X2VLM__NUM_LABELS": 2 if task == "marvl" else fixture.config["model"]["num_labels"],
        "MODEL__FUSION__MEMORY_WIDTH": fixture.config["vision"]["width"],
    }
    if task == "vqa":
        model = vqa_model(fixture, parity, weights)
    else:
        model = parity.model(fixture, FAMILIES[task], weights, **changes)
    batch = {**text_batch(inputs, "question"), kfg.IMAGES: inputs["image"]}
    if task == "vqa":
        (loss,) = learn(AnswerLikelihood(), model(answers_batch(inputs))).values()
        model.set_answers(*candidates(inputs))
        check_ranking(model, batch, fixture, parity, "vqa/rank_k5", 5)
    else:
        if task == "marvl":
            batch[kfg.IMAGES], batch[kfg.SECOND_IMAGES] = inputs["image_pair"].chunk(2)
        targets = inputs["pair_targets" if task == "marvl" else "targets"]
        outputs = model({**batch, kfg.U_TARGET_IDS: targets})
        parity.close(outputs[kfg.U_LOGITS], fixture.expected[f"{task}/logits"], "logits")
        (loss,) = learn(CrossEntropy(), outputs).values()
    parity.close(loss, fixture.expected[f"{task}/loss"], "loss")
    parity.gradients(model, fixture, task)


def test_published_overlaps_of_boxes(load_fixture, parity):
    from xmodaler.functional.func_regions import box_in_pixels, overlap_of_predictions

    fixture = load_fixture("grounding")
    inputs = fixture.below("iou/", fixture.inputs)
    rows = zip(inputs["pred_cxcywh"], inputs["img_wh"], inputs["gt_xywh_px"], strict=True)
    overlaps = [
        overlap_of_predictions(box_in_pixels(box.tolist(), *size.tolist()), right.tolist())
        for box, size, right in rows
    ]
    parity.close(torch.tensor(overlaps), fixture.expected["iou/iou"], "iou")
