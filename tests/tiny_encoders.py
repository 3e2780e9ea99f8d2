"""Real CLIP and T5 encoders of a few thousand random weights, and a tokenizer, saved as transformers saves them."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = ("<pad>", "</s>", "<unk>", "open", "close", "the", "drawer", "door", "push", "button")


def save_clip_vision(folder: Path, seed: int = 0) -> str:
    """A CLIP vision encoder of 16-pixel patches for 32-pixel images: 1 + 4 tokens, 24 wide."""
    torch.manual_seed(seed)
    config = transformers.CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        attention_dropout=0.5,
    )
    transformers.CLIPVisionModel(config).save_pretrained(folder)
    return str(folder)


def save_t5(folder: Path, seed: int = 0) -> str:
    """A T5 encoder, 16 wide, with a tokenizer that knows `WORDS`."""
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.5
    )
    transformers.T5EncoderModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def save_tokenizer(folder: Path) -> None:
    """One token a word."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
