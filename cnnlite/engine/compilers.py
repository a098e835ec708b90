"""Compilers that do less than numba's: machine code that is as fast, in three quarters of the time.

numba compiles every function to machine code on its own, even one that only other compiled functions call, and passes
the optimised LLVM IR to its callers. Each caller contains a copy, is optimised with it, and generates its code again.
Here such a function, a *part*, is only translated to LLVM IR. It is optimised once, within its caller, as a C compiler
does with the functions of one file. What Python or the executor calls is a *whole*, with all its parts.

A training step of a small convolutional network has 40 stages, made of 100 functions. Of the 25 s that numba
took to compile it, 6 s went to machine code for parts and to per-function passes, and 1.5 s to the passes that are
left out below.
"""

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder

# numba's passes for features that no kernel uses: closures, loops over tuples of mixed types, functions that numba
# should inline itself, objects, branches on None. After each pass, numba analyses the whole function again.
_LEFT_OUT = {
    "AnnotateTypes", "DeadBranchPrune", "DumpParforDiagnostics", "FindLiterallyCalls", "InlineClosureLikes",
    "InlineInlinables", "InlineOverloads", "LiteralPropagationSubPipelinePass", "LiteralUnroll",
    "MakeFunctionToJitFunction", "NoPythonSupportedFeatureValidation", "RewriteDynamicRaises",
    "RewriteSemanticConstants", "WithLifting",
}  # fmt: skip


class _Library(JITCodeLibrary):
    def _optimize_functions(self, ll_module):
        # numba optimises each function here, so that there is less to link, and then everything again after linking.
        ll_module.data_layout = self._codegen._data_layout


class _Whole(_Library):
    def _optimize_final_module(self):
        made = self._codegen._module_pass_manager()
        if isinstance(made, tuple):
            # Skips the first of numba's two rounds, which only prepares for pruning reference counts.
            passes, builder = made
            passes.run(self._final_module, builder)
        else:  # before numba 0.62
            super()._optimize_final_module()


class _NoMachineCode:
    """Stands in for numba's `codegen`, which would look up a library's variables in its machine code."""

    @staticmethod
    def set_env(name, env):
        pass


class _Part(_Library):
    codegen = _NoMachineCode

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name):
        return 0


class _Compiler(CompilerBase):
    def __init__(self, typing_context, target_context, library, *rest):
        super().__init__(typing_context, target_context, library or self.make(target_context.codegen()), *rest)

    def define_pipelines(self):
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        if not self.state.flags.auto_parallel.enabled:
            pipeline.passes = [each for each in pipeline.passes if each[0].__name__ not in _LEFT_OUT]
            pipeline.finalize()
        return [pipeline]


class WholeCompiler(_Compiler):
    """Compiles a function and its parts to machine code."""

    @staticmethod
    def make(codegen):
        library = _Whole(codegen, "whole")
        library.enable_object_caching()  # keeps the machine code, for the disk
        return library


class PartCompiler(_Compiler):
    """Compiles a function to LLVM IR for its callers, and no further."""

    @staticmethod
    def make(codegen):
        return _Part(codegen, "part")
