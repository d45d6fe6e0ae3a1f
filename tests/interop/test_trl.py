"""TRL's own SFTTrainer with a prior: a loop by hand over the texts, n counted in tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import SequentialSampler

import bayesreg as br
from tests.interop.common import RATE, gap

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
trl = pytest.importorskip("trl", reason="trl is not installed: pip install -c constraints.txt trl")

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(16))]
TEXTS = ["w1 w2 w3 w4 w5 w6", "w7 w8 w9", "w2 w4 w6 w8 w10", "w3 w1", "w11 w12 w13 w14 w15", "w5 w5 w2 w1"]
CLIP = 0.2


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def model(seed=0):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": len(WORDS), "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    dropped = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **dropped, bos_token_id=1, eos_token_id=2)).double()


class Ordered(br.interop.transformers.PriorMixin, trl.SFTTrainer):
    """As users mix it in; in the order of the data."""

    def _get_train_sampler(self, *_):
        return SequentialSampler(self.train_dataset)


def trainer(folder, prior, limit, **more):
    from datasets import Dataset

    args = trl.SFTConfig(
        output_dir=str(folder), use_cpu=True, report_to=[], optim="sgd", learning_rate=RATE, max_grad_norm=limit,
        lr_scheduler_type="constant", per_device_train_batch_size=2, gradient_accumulation_steps=2, num_train_epochs=2,
        save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    data = Dataset.from_dict({"text": TEXTS})
    return Ordered(model=model(), args=args, train_dataset=data, processing_class=tokenizer(), prior=prior, **more)


@pytest.mark.parametrize("limit", [0.0, CLIP])
def test_it_is_the_loop_by_hand(limit, tmp_path):
    made = trainer(tmp_path, "pretrained(0.1)", limit, num_data="tokens")
    texts = [torch.tensor(row["input_ids"]) for row in made.train_dataset]
    n = round(1.0 / made._scale.value)
    # A window is divided by all labels, or by those that are targets: which, differs by version and model.
    left_out = (sum(map(len, texts)) - n) // len(texts)
    assert n == sum(len(text) - left_out for text in texts)
    made.train()
    net = model()
    own = br.ModelPrior(net, br.Gaussian.centered_at(net, 0.1))
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    for _ in range(2):
        for window in (texts[:4], texts[4:]):
            optimizer.zero_grad()
            summed = sum(F.cross_entropy(net(text[None]).logits[0, :-1], text[1:], reduction="sum") for text in window)
            (summed / sum(len(text) - left_out for text in window) + own.penalty() / n).backward()
            if limit:
                torch.nn.utils.clip_grad_norm_(net.parameters(), limit)
            optimizer.step()
    # Its loss is computed in single precision, whatever the weights are.
    assert gap(made.model.parameters(), net.parameters()) < 1e-6
    assert gap(net.parameters(), model().parameters()) > 1e-2


def test_n_must_be_told(tmp_path):
    with pytest.raises(br.InvalidArgumentError, match="pass num_data='tokens', which counts them"):
        trainer(tmp_path, "pretrained(0.1)", 0.0)


def test_adapters_that_the_trainer_makes(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    made = trainer(tmp_path, "lora(0.02)", CLIP, num_data="tokens", peft_config=config)
    before = float(made.model_prior.penalty())
    made.train()
    assert "update" in str(made.prior_handle.describe())
    assert before == 0.0
    assert float(made.model_prior.penalty()) > 0.0
