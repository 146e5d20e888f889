"""Every documented name of X-modaler 1.1 that captioning needs is there, with its parameters."""

import importlib
import inspect

import pytest

# Parameters before "*" are given by position in user code, those behind it by name.
NAMES = {
    "xmodaler.checkpoint": """
        XmodalerCheckpointer(model, save_dir, *, save_to_disk, checkpointables)
        PeriodicEpochCheckpointer(checkpointer, period, max_iter, max_to_keep, file_prefix)
        XmodalerCheckpoint PeriodicEpochCheckpoint Checkpointer PeriodicCheckpointer
    """,
    "xmodaler.config": """
        CfgNode(init_dict, key_list, new_allowed) get_cfg() set_global_cfg(cfg) global_cfg kfg
        upgrade_config(cfg, to_version) downgrade_config(cfg, to_version)
        configurable(init_func, *, from_config)
    """,
    "xmodaler.config.config": "CfgNode",
    "xmodaler.config.constants": "kfg",
    "xmodaler.config.defaults": "_C",
    "xmodaler.config.lazy": "LazyCall(target) LazyConfig",
    "xmodaler.config.instantiate": "instantiate(cfg) dump_dataclass(obj)",
    "xmodaler.config.compat": "guess_version(cfg, filename)",
    "xmodaler.datasets": """
        build_xmodaler_train_loader(datalist, *, dataset_mapper, batch_size, num_workers)
        build_xmodaler_valtest_loader(datalist, *, dataset_mapper, batch_size, num_workers,
        multi_gpu_eval) build_dataset_mapper(cfg, name, stage)
        DatasetFromList(lst, copy, serialize) MapDataset(dataset, map_func)
        MSCoCoDataset(stage, anno_file, seq_per_img, max_feat_num, max_seq_len, feats_folder,
        relation_file, gv_feat_file, attribute_file) MSCoCoSampleByTxtDataset MSCoCoCOSNetDataset
        MSCoCoFeatDataset(max_seq_len, max_feat_num, sample_ids, file_paths)
        MSVDDataset(stage, anno_file, seq_per_img, max_feat_num, max_seq_len, feats_folder)
        MSRVTTDataset(stage, anno_file, seq_per_img, max_feat_num, max_seq_len, feats_folder)
        MSCoCoBertDataset(stage, anno_file, seq_per_img, max_seq_length, max_feat_num, feats_folder,
        images_ids_file, tokenizer)
        ConceptualCaptionsDataset(stage, anno_file, max_seq_length, max_feat_num, feats_folder,
        images_ids_file, tokenizer)
        ConceptualCaptionsDatasetForSingleStream(stage, anno_file, max_seq_length, max_feat_num,
        feats_folder, images_ids_file, tokenizer, itm_neg_prob)
        VQADataset(stage, anno_folder, ans2label_path, label2ans_path, feats_folder, max_feat_num,
        max_seq_len, use_global_v, tokenizer)
        VCRDataset(stage, task_name, anno_folder, feats_folder, max_feat_num, max_seq_len,
        seq_per_img, use_global_v, tokenizer)
        Flickr30kDataset(stage, anno_folder, anno_file, feats_folder, max_feat_num, max_seq_len,
        use_global_v, tokenizer)
        Flickr30kDatasetForSingleStream(stage, anno_folder, anno_file, feats_folder, max_feat_num,
        max_seq_len, use_global_v, negative_size, tokenizer, cfg)
        Flickr30kDatasetForSingleStreamVal(stage, anno_folder, anno_file, feats_folder,
        max_feat_num, max_seq_len, use_global_v, inf_batch_size, tokenizer, cfg)
    """,
    "xmodaler.datasets.build": """
        DATASETS_REGISTRY trivial_batch_collator(batch) worker_init_reset_seed(worker_id)
    """,
    "xmodaler.datasets.images.mscoco_raw": "MSCoCoRawDataset",
    "xmodaler.engine": """
        launch(main_func, num_gpus_per_machine, num_machines, machine_rank, dist_url, args, timeout)
        build_engine(cfg) default_argument_parser(epilog) default_setup(cfg, args)
        default_writers(output_dir, max_iter) HookBase() TrainerBase() DefaultTrainer(cfg)
        CallbackHook(*, before_train, after_train, before_step, after_step)
        IterationTimer(warmup_iter) PeriodicWriter(writers, period)
        PeriodicCheckpointer(checkpointer, period, max_iter, max_to_keep, file_prefix)
        PeriodicCheckpoint LRScheduler(optimizer, scheduler)
        AutogradProfiler(enable_predicate, output_dir, *, use_cuda)
        EvalHook(eval_period, eval_start, eval_function, iters_per_epoch, stage, multi_gpu_eval)
        PreciseBN(period, model, data_loader, num_iter) ModelWeightsManipulating() hooks
    """,
    "xmodaler.engine.hooks": "ScheduledSampling(start_iter, inc_every_iter, inc_prob, max_prob)",
    "xmodaler.engine.ema": "ModelEma(model, decay, device)",
    "xmodaler.engine.build": "ENGINE_REGISTRY",
    "xmodaler.engine.defaults": "DefaultTrainer default_setup default_argument_parser",
    "xmodaler.engine.train_loop": "HookBase TrainerBase",
    "xmodaler.evaluation": """
        build_evaluation(cfg, annfile, output_dir) COCOEvaler(cfg, annfile, output_dir)
        COCOPrinter(cfg, annfile, output_dir)
    """,
    "xmodaler.evaluation.build": "EVALUATION_REGISTRY",
    "xmodaler.evaluation.testing": "flatten_results_dict(results)",
    "xmodaler.functional": """
        boxes_to_locfeats(boxes, image_w, image_h) decode_sequence(vocab, seq)
        caption_to_mask_tokens(caption, max_seq_length, tokenizer, need_g_tokens,
        need_no_mask_tokens, must_mask) decode_sequence_bert(tokenizer, seq, sep_token_id)
        dict_as_tensor(input_dict) dict_to_cuda(input_dict) expand_tensor(tensor, size, dim)
        clip_v_inputs(v_feats, spatials, image_mask)
        clip_t_inputs(input_txt, segment_ids, input_mask) iou(anchors, gt_boxes) load_vocab(path)
        pad_tensor(tensor, padding_value, use_mask) random_region(image_feats, overlaps)
        random_word(tokens, tokenizer, must_mask) read_lines(path) read_lines_set(path)
        read_np(path) read_np_bbox(path, max_feat_num, use_global_v) flat_list_of_lists(l)
    """,
    "xmodaler.losses": """
        CrossEntropy() LabelSmoothing(*, label_smoothing) build_losses(cfg) build_rl_losses(cfg)
        add_loss_config(cfg, tmp_cfg)
    """,
    "xmodaler.losses.build": "LOSSES_REGISTRY",
    "xmodaler.lr_scheduler": """
        build_lr_scheduler(cfg, optimizer, data_size) StepLR(*, optimizer, step_size, gamma)
        NoamLR(*, optimizer, model_size, factor, warmup, last_epoch)
        WarmupConstant(*, optimizer, warmup_steps, last_epoch)
        WarmupLinear(*, optimizer, min_lr, warmup_steps, t_total, last_epoch)
        WarmupCosine(*, optimizer, min_lr, warmup_steps, t_total, cycles, last_epoch)
        WarmupCosineWithHardRestarts(*, optimizer, warmup_steps, t_total, cycles, last_epoch)
        WarmupMultiStepLR(*, optimizer, milestones, gamma, warmup_factor, warmup_iters,
        warmup_method, last_epoch) MultiStepLR(*, optimizer, milestones, gamma, last_epoch)
        FixLR(*, optimizer, last_epoch)
    """,
    "xmodaler.lr_scheduler.build": "LR_SCHEDULER_REGISTRY",
    "xmodaler.modeling": "build_model(cfg) add_config(cfg, tmp_cfg)",
    "xmodaler.modeling.decode_strategy": """
        build_beam_searcher(cfg) build_greedy_decoder(cfg) GreedyDecoder BeamSearcher
    """,
    "xmodaler.modeling.decode_strategy.build": "DECODE_STRATEGY_REGISTRY",
    "xmodaler.modeling.decode_strategy.decode_strategy": """
        DecodeStrategy(*, vocab_path, beam_size, max_seq_len, bert_tokenizer, bos_token_id,
        eos_token_id)
    """,
    "xmodaler.modeling.decoder": """
        build_decoder(cfg) add_decoder_config(cfg, tmp_cfg)
        UpDownDecoder(*, hidden_size, token_embed_dim, visual_embed_dim, att_embed_size, dropout1,
        dropout2, att_embed_dropout)
        TransformerDecoder(*, num_generation_layers, bert_generation_layers)
        TDConvEDDecoder(*, num_hidden_layers, hidden_size, kernel_sizes, conv_dropout,
        att_embed_size, att_embed_dropout, use_norm)
    """,
    "xmodaler.modeling.decoder.build": "DECODER_REGISTRY",
    "xmodaler.modeling.decoder.decoder": "Decoder",
    "xmodaler.modeling.encoder": """
        build_encoder(cfg) add_encoder_config(cfg, tmp_cfg) Encoder() UpDownEncoder()
        TransformerEncoder(*, num_hidden_layers, bert_layers) GTransformerEncoder
        TDConvEDEncoder(*, num_hidden_layers, hidden_size, kernel_sizes, padding_mode, offset_act,
        min_idx, max_idx, clamp_idx, dropout, use_norm)
    """,
    "xmodaler.modeling.encoder.build": "ENCODER_REGISTRY",
    "xmodaler.modeling.embedding": """
        build_embeddings(cfg, name) TokenBaseEmbedding(*, dim, vocab_size)
        VisualBaseEmbedding(*, in_dim, out_dim) VisualIdentityEmbedding()
        VisualGridEmbedding(*, in_dim, g_in_dim, out_dim)
        TDConvEDVisualBaseEmbedding(*, in_dim, out_dim)
    """,
    "xmodaler.modeling.embedding.build": "EMBEDDING_REGISTRY",
    "xmodaler.modeling.embedding.position_embedding": """
        SinusoidEncoding(dim, max_len) NNEmbeddingEncoding(dim, max_len)
        build_position_encoding(cfg, dim, max_len) POSITION_ENC_REGISTRY
    """,
    "xmodaler.modeling.layers": "get_act_layer(name) BaseAttention",
    "xmodaler.modeling.layers.tdconved_layers": """
        TemporalDeformableLayer(in_channels, out_channels, kernel_size, stride, padding_mode,
        offset_act, min_idx, max_idx, clamp_idx, dropout, use_norm)
        TemporalDeformableBlock(in_channels, out_channels, kernel_size, stride, padding_mode,
        offset_act, min_idx, max_idx, clamp_idx, use_norm)
        ShiftedConvLayer(in_channels, out_channels, kernel_size, stride, padding_mode, dropout,
        use_norm)
        SoftAttention(*, hidden_size, att_embed_size, att_embed_dropout, use_norm)
    """,
    "xmodaler.modeling.layers.create_act": "get_activation(activation_string)",
    "xmodaler.modeling.layers.bert": """
        BertSelfAttention(*, hidden_size, num_attention_heads, attention_probs_dropout_prob)
        BertSelfOutput(*, hidden_size, layer_norm_eps, hidden_dropout_prob)
        BertAttention(*, bert_self_attention, bert_self_output)
        BertIntermediate(*, hidden_size, hidden_act, intermediate_size, intermediate_drop)
        BertOutput(*, hidden_size, intermediate_size, layer_norm_eps, ffn_dropout_prob)
        BertXAttention(*, hidden_size, num_attention_heads, attention_probs_dropout_prob)
        BertCrossAttention(*, bert_cross_attention, bert_self_output)
        BertLayer(*, bert_attention, bert_intermediate, bert_output)
        BertGenerationLayer(*, bert_attention, bert_cross_attention, bert_intermediate, bert_output)
    """,
    "xmodaler.modeling.meta_arch": "build_model(cfg) add_config(cfg, tmp_cfg) META_ARCH_REGISTRY",
    "xmodaler.modeling.meta_arch.build": "META_ARCH_REGISTRY",
    "xmodaler.modeling.meta_arch.base_enc_dec": """
        BaseEncoderDecoder(*, vocab_size, max_seq_len, token_embed, visual_embed, encoder, decoder,
        predictor, greedy_decoder, beam_searcher)
    """,
    "xmodaler.modeling.meta_arch.rnn_att_enc_dec": "RnnAttEncoderDecoder",
    "xmodaler.modeling.meta_arch.transformer_enc_dec": "TransformerEncoderDecoder",
    "xmodaler.modeling.meta_arch.ensemble": "Ensemble(models, cfg)",
    "xmodaler.modeling.predictor": """
        build_predictor(cfg) build_v_predictor(cfg) build_predictor_with_name(cfg, name)
        add_predictor_config(cfg, tmp_cfg) BasePredictor(*, hidden_size, vocab_size, dropout)
    """,
    "xmodaler.modeling.predictor.build": "PREDICTOR_REGISTRY",
    "xmodaler.optim": """
        build_optimizer(cfg, model)
        Adagrad(*, params, lr, lr_decay, weight_decay, initial_accumulator_value, eps)
        Adam(*, params, lr, betas, eps, weight_decay, amsgrad)
        AdamW(*, params, lr, betas, eps, weight_decay, amsgrad)
        Adamax(*, params, lr, betas, eps, weight_decay)
        RAdam(*, params, lr, betas, eps, weight_decay)
        RMSprop(*, params, lr, alpha, eps, weight_decay, momentum, centered)
        SGD(*, params, lr, momentum, dampening, weight_decay, nesterov)
        BertAdam(*, params, lr, b1, b2, eps, weight_decay, max_grad_norm)
    """,
    "xmodaler.optim.build": """
        SOLVER_REGISTRY maybe_add_gradient_clipping(cfg, optimizer)
        build_optimizer_params(cfg, params) get_default_optimizer_params(model, base_lr,
        weight_decay, weight_decay_norm, bias_lr_factor, weight_decay_bias, overrides)
    """,
    "xmodaler.optim.radam": "PlainRAdam",
    "xmodaler.tokenization": """
        BertTokenizer(vocab_file, do_lower_case, do_basic_tokenize, never_split, unk_token,
        sep_token, pad_token, cls_token, mask_token, tokenize_chinese_chars)
    """,
    "xmodaler.utils.collect_env": "collect_env_info()",
    "xmodaler.utils.colormap": "colormap(rgb, maximum) random_color(rgb, maximum)",
    "xmodaler.utils.comm": """
        all_gather(data, group) gather(data, dst, group) get_local_rank() get_local_size()
        get_rank() get_world_size() is_main_process() reduce_dict(input_dict, average)
        shared_random_seed() synchronize() unwrap_model(model) _LOCAL_PROCESS_GROUP
    """,
    "xmodaler.utils.distributed": """
        all_gather_list(data) any_broadcast(data, root_rank)
        broadcast_tensors(tensors, root_rank, buffer_size)
    """,
    "xmodaler.utils.env": """
        seed_all_rng(seed) setup_environment() setup_custom_environment(custom_module)
        TORCH_VERSION
    """,
    "xmodaler.utils.events": """
        get_event_storage() JSONWriter(json_file, window_size)
        TensorboardXWriter(log_dir, window_size) TensorboardWriter CommonMetricPrinter(max_iter)
        EventStorage(start_iter) EventWriter
    """,
    "xmodaler.utils.file_io": "PathManager PathHandler",
    "xmodaler.utils.initialization": "trunc_normal_(tensor, mean, std, a, b)",
    "xmodaler.utils.logger": """
        setup_logger(output, distributed_rank, *, color, name, abbrev_name)
        log_first_n(lvl, msg, n, *, name, key) log_every_n(lvl, msg, n, *, name)
        log_every_n_seconds(lvl, msg, n, *, name) create_small_table(small_dict)
        Counter colored tabulate
    """,
    "xmodaler.utils.memory": "retry_if_cuda_oom(func)",
    "xmodaler.utils.registry": "Registry(name) locate(name)",
    "xmodaler.utils.serialize": "PicklableWrapper(obj)",
}
MEMBERS = {
    "xmodaler.config.CfgNode": """
        DEPRECATED_KEYS IMMUTABLE NEW_ALLOWED RENAMED_KEYS clone freeze defrost is_frozen _immutable
        merge_from_file merge_from_list merge_from_other_cfg load_from_file_tmp load_yaml_with_base
        dump load_cfg register_deprecated_key register_renamed_key key_is_deprecated key_is_renamed
        raise_key_rename_error is_new_allowed set_new_allowed _open_cfg _decode_cfg_value
    """,
    "xmodaler.checkpoint.XmodalerCheckpointer": """
        save load resume_or_load has_checkpoint get_checkpoint_file get_all_checkpoint_files
        tag_last_checkpoint add_checkpointable _load_file _load_model _convert_ndarray_to_tensor
        _log_incompatible_keys
    """,
    "xmodaler.engine.DefaultTrainer": """
        build_model build_optimizer build_lr_scheduler build_train_loader build_val_loader
        build_test_loader build_losses test build_hooks build_writers run_step _write_metrics
        auto_scale_workers resume_or_load train register_hooks state_dict load_state_dict
        before_train after_train before_step after_step
    """,
    "xmodaler.utils.events.EventStorage": """
        put_image put_scalar put_scalars put_histogram history histories latest
        latest_with_smoothing_hint smoothing_hints step iter iteration name_scope clear_images
        clear_histograms
    """,
    "xmodaler.modeling.meta_arch.base_enc_dec.BaseEncoderDecoder": """
        from_config add_config forward greedy_decode decode_beam_search preprocess_batch
        bind_or_init_weights get_extended_attention_mask _forward
    """,
}


def entries(text):
    """``"f(a, *, b) g"`` -> ``[("f", ["a", "*", "b"]), ("g", None)]``."""
    result, rest = [], " ".join(text.split())
    while rest:
        name, _, behind = rest.partition(" ")
        if "(" not in name:
            result.append((name, None))
            rest = behind
            continue
        name, _, behind = rest.partition("(")
        parameters, _, rest = behind.partition(")")
        result.append((name, [p.strip() for p in parameters.split(",") if p.strip()]))
        rest = rest.strip()
    return result


@pytest.mark.parametrize("module", NAMES)
def test_names_and_parameters(module):
    problems = []
    loaded = importlib.import_module(module)
    for name, documented in entries(NAMES[module]):
        if not hasattr(loaded, name):
            problems.append(f"{name} is missing")
        elif documented is not None:
            problems.extend(differences(name, getattr(loaded, name), documented))
    assert not problems


def differences(name, value, documented):
    parameters = inspect.signature(value).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    accepted = None if inspect.Parameter.VAR_KEYWORD in kinds else set(parameters)
    split = documented.index("*") if "*" in documented else len(documented)
    by_position, by_name = documented[:split], documented[split + 1 :]
    there = [
        key
        for key, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if by_position != there[: len(by_position)] and inspect.Parameter.VAR_POSITIONAL not in kinds:
        yield f"{name} has the positions {there}, not {by_position}"
    if accepted is not None and not set(by_name) <= accepted:
        yield f"{name} does not take {sorted(set(by_name) - accepted)}"


@pytest.mark.parametrize("name", MEMBERS)
def test_members(name):
    module, _, owner = name.rpartition(".")
    owner = getattr(importlib.import_module(module), owner)
    assert [member for member in MEMBERS[name].split() if not hasattr(owner, member)] == []


def test_documented_members_of_the_registries():
    from xmodaler.datasets.build import DATASETS_REGISTRY
    from xmodaler.engine.build import ENGINE_REGISTRY
    from xmodaler.evaluation.build import EVALUATION_REGISTRY
    from xmodaler.lr_scheduler.build import LR_SCHEDULER_REGISTRY
    from xmodaler.optim.build import SOLVER_REGISTRY

    expected = {
        ENGINE_REGISTRY: "DefaultTrainer",
        DATASETS_REGISTRY: "MSCoCoDataset MSCoCoSampleByTxtDataset MSCoCoFeatDataset",
        EVALUATION_REGISTRY: "COCOEvaler COCOPrinter",
        SOLVER_REGISTRY: "Adagrad Adam AdamW Adamax BertAdam PlainRAdam RAdam RMSprop SGD",
        LR_SCHEDULER_REGISTRY: "StepLR MultiStepLR WarmupMultiStepLR WarmupConstant WarmupLinear "
        "WarmupCosine WarmupCosineWithHardRestarts NoamLR FixLR",
    }
    for registry, names in expected.items():
        assert [name for name in names.split() if name not in registry] == []
