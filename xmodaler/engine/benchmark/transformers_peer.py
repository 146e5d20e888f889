"""An encoder-decoder of the ``transformers`` library with the sizes of a config."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, kfg
from xmodaler.engine.benchmark.systems import NEVER, System
from xmodaler.utils.env import resolve_device
from xmodaler.utils.errors import MissingDependencyError, UserError


class TransformersPeer(System):
    """A Marian Transformer (post-norm, sinusoidal positions) fed with projected features.

    Same layers, widths, heads and vocabulary as the config, its own cached beam search, and the
    config's own losses and optimizer. As a careful user of the library would write it, training
    encodes a picture once and repeats the encoder's output for its captions.
    """

    def build_model(self) -> nn.Module:
        """The projection of features and the Marian network."""
        if self.cfg.MODEL.META_ARCHITECTURE != "TransformerEncoderDecoder":
            raise UserError(
                "--peer transformers needs MODEL.META_ARCHITECTURE TransformerEncoderDecoder, not "
                f"{self.cfg.MODEL.META_ARCHITECTURE}: the library has no such captioner."
            )
        return _Captioner(self.cfg).to(resolve_device(self.cfg.MODEL.DEVICE))

    def outputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Teacher-forced logits with the targets."""
        encoded, mask = self.model.encode(batch)
        groups = len(batch[kfg.G_TOKENS_IDS]) // len(encoded)
        logits = self.model.network(
            encoder_outputs=(encoded.repeat_interleave(groups, 0),),
            attention_mask=mask.repeat_interleave(groups, 0),
            decoder_input_ids=batch[kfg.G_TOKENS_IDS],
            use_cache=False,
        ).logits
        return {kfg.G_LOGITS: logits, kfg.G_TARGET_IDS: batch[kfg.G_TARGET_IDS]}

    def generate(self) -> Tensor:
        """The library's beam search with its key/value caches."""
        feats, mask = self.model.project(self.decode_batch)
        self.model.network.final_logits_bias[0, 0] = NEVER
        ids = self.model.network.generate(
            inputs_embeds=feats,
            attention_mask=mask,
            num_beams=self.workload.beam_size,
            max_new_tokens=self.workload.steps,
            do_sample=False,
            use_cache=True,
        )
        self.model.network.final_logits_bias[0, 0] = 0.0
        return ids[:, 1:]


class _Captioner(nn.Module):
    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        try:
            from transformers import MarianConfig, MarianMTModel
        except ImportError as error:
            raise MissingDependencyError(
                "--peer transformers needs the transformers library: pip install transformers"
            ) from error
        bert, embed = cfg.MODEL.BERT, cfg.MODEL.VISUAL_EMBED
        config = MarianConfig(
            vocab_size=cfg.MODEL.VOCAB_SIZE,
            d_model=bert.HIDDEN_SIZE,
            encoder_layers=bert.NUM_HIDDEN_LAYERS,
            decoder_layers=bert.NUM_GENERATION_LAYERS,
            encoder_attention_heads=bert.NUM_ATTENTION_HEADS,
            decoder_attention_heads=bert.NUM_ATTENTION_HEADS,
            encoder_ffn_dim=bert.INTERMEDIATE_SIZE,
            decoder_ffn_dim=bert.INTERMEDIATE_SIZE,
            activation_function=bert.HIDDEN_ACT,
            dropout=bert.HIDDEN_DROPOUT_PROB,
            attention_dropout=bert.ATTENTION_PROBS_DROPOUT_PROB,
            activation_dropout=bert.FFN_DROPOUT_PROB,
            max_position_embeddings=max(cfg.DATALOADER.MAX_FEAT_NUM, cfg.MODEL.MAX_SEQ_LEN) + 2,
            decoder_start_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            forced_eos_token_id=None,
        )
        self.network = MarianMTModel(config)
        self.network.generation_config.forced_eos_token_id = None
        self.visual = nn.Sequential(
            nn.Linear(embed.IN_DIM, bert.HIDDEN_SIZE),
            nn.ReLU(),
            nn.LayerNorm(bert.HIDDEN_SIZE),
            nn.Dropout(embed.DROPOUT),
        )

    def project(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Features as the encoder reads them, (B, N, D), and their mask (B, N)."""
        return self.visual(batch[kfg.ATT_FEATS]), batch[kfg.ATT_MASKS].long()

    def encode(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Encoder output (B, N, D) and mask (B, N)."""
        feats, mask = self.project(batch)
        encoder = self.network.get_encoder()
        return encoder(inputs_embeds=feats, attention_mask=mask).last_hidden_state, mask
