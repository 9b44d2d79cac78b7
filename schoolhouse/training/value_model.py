"""Value model and reward models on the policy's frozen tensors: an adapter and a head each."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from schoolhouse.training.reward_model import HEAD, with_head


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def shared_classifier(policy: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """
    Return a one-label classifier without adapters, whose tensors are the policy's own frozen ones, in a module tree of
    its own, with a head `score` of zeros in fp32. Trainable weights cannot be shared: without adapters all are copied.

    Switching adapters on one module while gradients are recorded gives wrong gradients under gradient checkpointing; a
    second tree over the same tensors costs no more than its adapter.
    """
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    shared = {id(tensor): tensor for tensor in [*policy.parameters(), *policy.buffers()] if not tensor.requires_grad}
    twin = copy.deepcopy(policy, shared)  # the memo makes it reuse the shared tensors instead of copying them
    if isinstance(twin, PeftModel):
        twin = twin.unload()
    config = copy.deepcopy(twin.config)
    config.num_labels = 1
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)
    setattr(classifier, classifier.base_model_prefix, twin.base_model)
    device = next(twin.parameters()).device
    setattr(classifier, HEAD, nn.Linear(config.get_text_config().hidden_size, 1, bias=False, device=device))
    nn.init.zeros_(classifier.score.weight)
    return classifier


def value_model(policy: PreTrainedModel | PeftModel, reward_adapter: str | None = None) -> PreTrainedModel | PeftModel:
    """
    Return the value model: from each token of a completion, the expected sum of its later rewards. It has no dropout;
    its values are those of [`token_values`].

    The policy's frozen tensors are shared; a policy without adapters gets a whole copy. `reward_adapter` is the folder
    of a reward adapter on the same base to start from: it knows already what will be rewarded. By default the value
    model starts from the policy's LoRA tensors and a head of zeros.
    """
    from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from trl.trainer.utils import disable_dropout_in_model

    classifier = shared_classifier(policy)
    disable_dropout_in_model(classifier)  # old and new values are compared: they must not differ by chance
    if not isinstance(policy, PeftModel):
        return classifier.requires_grad_(True)
    if reward_adapter is not None:
        config = PeftConfig.from_pretrained(reward_adapter)
        config.lora_dropout = 0.0
        return PeftModel.from_pretrained(classifier, reward_adapter, config=config, is_trainable=True)
    config = with_head(copy.deepcopy(policy.peft_config["default"]))
    config.lora_dropout = 0.0
    model = get_peft_model(classifier, config)
    tensors = get_peft_model_state_dict(policy, adapter_name="default", save_embedding_layers=False)
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    set_peft_model_state_dict(model, own | {name: tensor for name, tensor in tensors.items() if name in own})
    return model


def token_values(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, completion_length: int) -> Tensor:
    """
    Return the value before each token of the completions is chosen.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            From [`value_model`].
        input_ids (`torch.Tensor`):
            Prompts and completions, shape (B, P + T).
        attention_mask (`torch.Tensor`):
            Shape (B, P + T).
        completion_length (`int`):
            T.

    Returns:
        `torch.Tensor`: shape (B, T), fp32, in units of the reward.
    """
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = classifier.base_model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    # The state before token t is that of token t - 1, so the first one is the prompt's last.
    hidden = hidden[:, -completion_length - 1 : -1]
    return classifier.score(hidden.float()).squeeze(-1).float()
