import os
import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

MODE = os.environ.get("PARTMODE", "none")
FULL = os.environ.get("FULLMODE", "full")
OPT = int(os.environ.get("FULLOPT", "3"))
UNROLL = os.environ.get("UNROLL", "1") == "1"


class Whole(JITCodeLibrary):
    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        if FULL == "cheapfull":
            mpm, pb = self._codegen._module_pass_manager(loop_vectorize=False, slp_vectorize=False, opt=0, cost="cheap")
            with self._recorded_timings.record("c", pb):
                mpm.run(self._final_module, pb)
        pto = llvm.create_pipeline_tuning_options()
        pto.speed_level = OPT
        pto.loop_vectorization = True
        pto.loop_unrolling = UNROLL
        pb = llvm.create_pass_builder(self._codegen._tm, pto)
        pm = pb.getModulePassManager()
        pm.run(self._final_module, pb)


class _NoCode:
    @staticmethod
    def set_env(name, env):
        pass


class Part(JITCodeLibrary):
    codegen = _NoCode

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout
        if MODE == "fpm":
            JITCodeLibrary._optimize_functions(self, ll_module)

    def _optimize_final_module(self):
        if MODE == "cheap":
            mpm, pb = self._codegen._module_pass_manager(loop_vectorize=False, slp_vectorize=False, opt=0, cost="cheap")
            mpm.run(self._final_module, pb)
        if MODE.startswith("O"):
            pto = llvm.create_pipeline_tuning_options()
            pto.speed_level = int(MODE[1])
            pto.loop_vectorization = False
            pto.loop_unrolling = False
            pb = llvm.create_pass_builder(self._codegen._tm, pto)
            pb.getModulePassManager().run(self._final_module, pb)

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name):
        return 0

    def serialize_using_object_code(self):
        return self.name, "part", self._get_module_for_linking().as_bitcode()


class PartCompiler(Compiler):
    def __init__(self, typingctx, targetctx, library, args, return_type, flags, locals):
        super().__init__(typingctx, targetctx, library or Part(targetctx.codegen(), "part"), args, return_type, flags, locals)


class WholeCompiler(Compiler):
    def __init__(self, typingctx, targetctx, library, args, return_type, flags, locals):
        library = library or Whole(targetctx.codegen(), "whole")
        library.enable_object_caching()
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)


def rebuild(target_context, state):
    from numba.core.compiler import compile_result
    (name, _, bitcode), fndesc, env, signature, objectmode, lifted, typeann, reload_init, _ = state
    for function in reload_init:
        function()
    library = Part(target_context.codegen(), name)
    library._shared_module = llvm.parse_bitcode(bitcode)
    library._finalized = True
    return compile_result(typing_context=target_context.typing_context, target_context=target_context,
        entry_point=target_context.get_executable(library, fndesc, env), type_annotation=typeann,
        signature=signature, objectmode=objectmode, lifted=lifted, fndesc=fndesc, library=library,
        environment=env, reload_init=reload_init, referenced_envs=())
